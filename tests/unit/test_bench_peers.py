"""The comparison with other job queues: recorded rates are distinct, read back and drawn."""

from pathlib import Path

import pytest

from experiments.bench.peers.comparison import ACCEPTED, DONE, Comparison, Recorded, draw, without_paths
from experiments.bench.peers.libraries import LIBRARIES, OURS, Library, installed
from experiments.bench.peers.measure import Rates, rate_of
from experiments.bench.record import Place
from overload_demo.load.machine import Environment

RQ = next(library for library in LIBRARIES if library.name == "RQ")
PLACE = Place(
    command="python -m experiments.bench.peers",
    commit="unknown",
    recorded_at="2026-01-01T12:00:00.000Z",
    environment=Environment(processor="", system="", cores=2, python="", versions={}, descriptor_limit=1024),
    versions={},
    filesystem="ext4",
    fsync_p50_ms=0.2,
)


def compared() -> Comparison:
    rates = Rates()
    for own, theirs in ((10_000.0, 2_000.0), (12_000.0, 1_000.0), (11_000.0, 1_500.0)):
        rates.add(ACCEPTED, OURS.name, own)
        rates.add(ACCEPTED, RQ.name, theirs)
        for name, rate in ((OURS.name, 2 * own), *((worker.name, theirs / 10) for worker in RQ.workers)):
            rates.add(DONE, name, rate)
    contestants = [Recorded(about=one, versions={"it": "1.0"}, jobs={}) for one in (OURS, RQ)]
    return Comparison(place=PLACE, rows=rates.rows(), notes={}, contestants=contestants)


def test_a_ratio_is_of_one_round() -> None:
    [accepted] = [row for row in compared().rows if row.unit == ACCEPTED]

    assert accepted.what == "RQ"
    assert accepted.values == [5.0, 12.0, 11_000 / 1_500]


def test_each_worker_of_a_library_has_a_row() -> None:
    done = compared().rates(DONE)

    assert list(done) == [OURS.name, "RQ", "RQ, SimpleWorker"]
    assert done[OURS.name] == [20_000.0, 24_000.0, 22_000.0]


def test_a_record_is_read_as_it_was_written_and_can_be_drawn(tmp_path: Path) -> None:
    compared().record("peers", tmp_path)

    recorded = Comparison.read("peers", tmp_path)

    assert recorded == compared()
    assert draw(recorded, tmp_path / "figure.png").stat().st_size > 10_000


def test_a_rate_is_from_the_first_completion_to_the_last_in_any_order() -> None:
    assert rate_of([3_000_000_000, 1_000_000_000, 2_000_000_000]) == 1.0


def test_no_path_of_a_machine_is_recorded() -> None:
    place = PLACE.model_copy(update={"command": f"{PLACE.command} --folder /somewhere/here --rounds 5"})

    assert without_paths(place).command == f"{PLACE.command} --folder here --rounds 5"


def test_a_library_that_is_not_installed_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = RQ.model_copy(update={"name": "unknown", "packages": ("no-such-package-anywhere",)})

    assert [one.about for one in installed([OURS, unknown], None)] == [OURS]
    assert capsys.readouterr().out == "unknown is left out: no-such-package-anywhere not installed\n"


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_every_peer_has_its_app_and_a_first_worker_of_its_name(library: Library) -> None:
    app = Path(*library.module.split(".")).with_suffix(".py")

    assert (Path(__file__).parents[2] / app).exists()
    assert library.workers[0].name == library.name

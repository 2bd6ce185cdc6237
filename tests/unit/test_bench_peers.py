"""The comparison with other job queues: recorded rates are distinct, read back and drawn."""

import contextlib
import itertools
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from experiments.bench.limit import microseconds
from experiments.bench.peers.comparison import ACCEPTED, DONE, IDLE, Comparison, Part, p99, without_paths
from experiments.bench.peers.libraries import LIBRARIES, OURS, Contestant, Library, Recorded, installed
from experiments.bench.peers.measure import Result, _one_post_to_five_polls, in_turns, rate_of, rows_of
from experiments.bench.record import Place
from experiments.bench.servers import drained, wrk
from overload_demo.errors import OverloadDemoError
from overload_demo.load.machine import Environment

RQ, BULLMQ = (next(library for library in LIBRARIES if library.name == name) for name in ("RQ", "BullMQ"))
OUR_WORKER, (NO_FORK, FORK) = OURS.row(OURS.workers[0]), map(RQ.row, RQ.workers)
PLACE = Place(
    command="python -m experiments.bench.peers",
    commit="unknown",
    recorded_at="2026-01-01T12:00:00.000Z",
    environment=Environment(processor="", system="", cores=2, python="", versions={}, descriptor_limit=1024),
    versions={},
    filesystem="ext4",
    fsync_p50_ms=0.2,
)


def part_of(command: str, *units: str, factor: float = 1.0) -> Part:
    """A run of two rounds, this package beside RQ, with ``factor`` in the rates of RQ."""
    results: list[Result] = []
    for own, theirs in ((10_000.0, 2_000.0), (12_000.0, 1_000.0)):
        for unit in units:
            rows = {OUR_WORKER: 2.0, NO_FORK: 0.1, FORK: 0.01} if unit == DONE else {OURS.name: 1.0, RQ.name: 1.0}
            for name, share in rows.items():
                results.append((unit, name, share * (own if name.startswith(OURS.name) else theirs * factor)))
    contestants = [Recorded(about=one, versions={"it": "1.0"}) for one in (OURS, RQ)]
    place = PLACE.model_copy(update={"command": command})
    return Part(place=place, rows=rows_of(results), notes={}, contestants=contestants)


def compared() -> Comparison:
    return Comparison(parts=[part_of("all", *ACCEPTED, DONE)])


def test_a_ratio_is_of_one_round() -> None:
    assert compared().rows(ACCEPTED[0])["RQ"].values == [5.0, 12.0]


def test_each_worker_of_a_library_has_a_row_and_the_fastest_is_shown() -> None:
    assert compared().rates(DONE) == {OUR_WORKER: [20_000.0, 24_000.0], NO_FORK: [200.0, 100.0], FORK: [20.0, 10.0]}

    ours, rq = compared().summaries()

    assert (ours.version, ours.done, ours.idle_ms) == ("", [20_000.0, 24_000.0], [])
    assert (rq.version, rq.done, rq.how, rq.one_at_a_time) == ("1.0", [200.0, 100.0], "1 at a time, no fork", rq.done)


def test_a_newer_run_replaces_the_rows_that_it_measured_and_no_others() -> None:
    newer = compared().with_part(part_of("one unit", ACCEPTED[0], factor=2.0))

    assert [part.place.command for part in newer.parts] == ["all", "one unit"]
    assert [newer.rates(unit)["RQ"] for unit in ACCEPTED] == [[4_000.0, 2_000.0], [2_000.0, 1_000.0]]
    assert newer.rates(ACCEPTED[1])[OURS.name] == [10_000.0, 12_000.0]
    assert newer.with_part(part_of("everything", *ACCEPTED, DONE)).parts == [part_of("everything", *ACCEPTED, DONE)]


def test_what_this_package_did_in_the_newest_run_is_shown() -> None:
    other = part_of("other", DONE)
    other.rows[:] = [row.model_copy(update={"what": f"other {row.what}", "ours": [1.0, 2.0]}) for row in other.rows]

    newer = compared().with_part(other)

    assert newer.rates(DONE)[OUR_WORKER] == [1.0, 2.0]
    assert newer.rows(DONE)[NO_FORK].ours == [20_000.0, 24_000.0]


def test_a_time_is_better_when_it_is_shorter() -> None:
    [row] = part_of("idle", IDLE).rows

    assert row.less_is_better
    assert p99([float(number) for number in range(101)]) == 99.0


def test_a_record_is_read_as_it_was_written_and_is_drawn(tmp_path: Path) -> None:
    assert Comparison.read(tmp_path).parts == []

    compared().write(tmp_path)

    assert Comparison.read(tmp_path) == compared()
    assert (tmp_path / "bench_peers.png").stat().st_size > 10_000


def test_a_library_that_fails_in_a_later_round_is_left_out_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    rounds: list[str] = []

    def measure_one(contestant: Contestant) -> Iterator[Result]:
        rounds.append(contestant.about.name)
        yield DONE, contestant.about.row(contestant.about.workers[0]), 1.0
        if rounds.count(BULLMQ.name) == 2 and contestant.about is BULLMQ:
            raise OverloadDemoError("its worker ended")

    contestants = [Contestant(about=one, versions={}, folder=Path()) for one in (OURS, BULLMQ, RQ)]

    results = in_turns(contestants, 3, measure_one)

    assert [name for _, name, _ in results] == [OUR_WORKER, NO_FORK, NO_FORK, OUR_WORKER, OUR_WORKER, NO_FORK]
    assert "BullMQ is left out: its worker ended" in capsys.readouterr().out


def test_a_rate_is_from_the_first_completion_to_the_last_in_any_order() -> None:
    assert rate_of([3_000_000_000, 1_000_000_000, 2_000_000_000]) == 1.0


def test_no_path_of_a_machine_is_recorded() -> None:
    place = PLACE.model_copy(update={"command": f"{PLACE.command} --folder /somewhere/here --rounds 5"})

    assert without_paths(place).command == f"{PLACE.command} --folder here --rounds 5"


def test_a_library_without_what_it_runs_on_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert [one.about for one in installed([OURS, BULLMQ], tmp_path / "environments")] == [OURS]
    assert capsys.readouterr().out.splitlines()[-1] == "BullMQ is left out: no Node and npm found"


@pytest.mark.parametrize("library", [OURS, *LIBRARIES], ids=lambda library: library.name)
def test_every_library_has_its_app_and_a_worker_that_does_one_job_at_a_time(library: Library) -> None:
    root, words = Path(__file__).parents[2], library.serve.split()
    app = words[1] if library.runs_on_node else f"{library.module.replace('.', '/')}.py"

    assert library is OURS or (root / app).exists()
    assert library.store == "nothing" or 1 in {worker.at_once for worker in library.workers}
    assert len({library.row(worker) for worker in library.workers}) == len(library.workers)


@contextlib.contextmanager
def server_of(answer: Callable[[BaseHTTPRequestHandler], object]) -> Iterator[str]:
    """A server that answers every request with JSON and keeps its connections."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each response takes 40 ms

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(answer(self)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_polls_of_the_mixed_load_are_equally_many_of_each_state() -> None:
    paths = Counter[str]()
    script = _one_post_to_five_polls('{"name": "ada"}', [["finished"], ["running"], ["queued", "queued"]])
    with server_of(lambda request: paths.update([request.path])) as url:
        wrk(url, 2, 2.0, script)

    posts, polls = paths.pop("/jobs"), sorted(paths.values())
    assert len(polls) == 3 and polls[0] > 100
    assert polls[2] - polls[0] <= max(4, 0.01 * polls[2]), paths
    assert sum(polls) == pytest.approx(5 * posts, rel=0.01, abs=10)


@pytest.mark.parametrize("done", [0, 10])
def test_a_drain_within_one_look_has_no_rate(done: int) -> None:
    answers = iter([{"done": 0}, {"done": done}])
    with (
        server_of(lambda _: {"queue_length": 0, "in_flight": 0} | next(answers)) as url,
        pytest.raises(OverloadDemoError, match="too few jobs to measure a rate"),
    ):
        drained(url)


def test_the_cpu_time_of_a_job_is_divided_by_the_jobs_that_were_done() -> None:
    done = itertools.chain([7], itertools.repeat(107))

    def burn() -> float:
        until_s = time.process_time() + 0.3
        while time.process_time() < until_s:
            pass
        return 1e6  # a rate that has nothing to do with it

    used = microseconds({"this": os.getpid()}, burn, lambda: next(done))

    assert used["this"] == pytest.approx(1e6 * 0.3 / 100, rel=0.2)
    assert used["rate"] == 1e6

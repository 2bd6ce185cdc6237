"""The record of the fault matrix: sums of several runs, and rows recorded later than the rest."""

from experiments.fault_matrix import FaultMatrix, RowResult, durability_block, faults_block
from tests.history.matrix import summed
from tests.history.rows import BY_NAME
from tests.unit.test_bench_peers import PLACE

LATER = PLACE.model_copy(update={"command": "python -m tests.history --times 2 F2", "recorded_at": "2026-01-02T"})


def result(name: str, seed: int = 1, **fields: object) -> RowResult:
    return RowResult.model_validate({"name": name, "what": "what", "how": "how", "seed": seed, **fields})


def test_several_runs_add_up_and_keep_their_longest_times() -> None:
    one = result("F2", fired=3, accepted=90, attempted=100, seconds=2.0, recovery_s=[0.2], longest_gap_s=0.5)
    other = result("F2", fired=4, accepted=80, attempted=100, seconds=1.0, recovery_s=[0.1], longest_gap_s=0.4)
    one.allowed, other.allowed = {"not conserved": 1}, {"not conserved": 2, "out of order": 1}

    both = summed([one, other])

    assert (both.runs, both.fired, both.accepted, both.attempted, both.seconds) == (2, 7, 170, 200, 3.0)
    assert (both.recovery_s, both.longest_gap_s) == ([0.2, 0.1], 0.5)
    assert both.allowed == {"not conserved": 3, "out of order": 1}
    assert not both.wrong
    assert both.times == "7 in 2 runs"


def test_one_failing_run_fails_the_sum_and_names_its_seed() -> None:
    assert summed([result("F2", seed=7), result("F2", seed=8, wrong="lost 1")]).wrong == "seed 8: lost 1"


def test_later_rows_replace_those_of_their_name_and_keep_their_place() -> None:
    matrix = FaultMatrix(place=PLACE, rows=[result("F1"), result("F2", fired=1), result("all")])
    later = [result("F2", fired=9, runs=2, place=LATER), result("F28", fired=4, place=LATER)]

    merged = matrix.with_rows(later, BY_NAME)

    assert [(row.name, row.fired, row.place) for row in merged.rows] == [
        ("F1", 0, None),
        ("F2", 9, LATER),
        ("F28", 4, LATER),
        ("all", 0, None),
    ]
    assert merged.places == [PLACE, LATER]
    assert "| 9 in 2 runs |" in faults_block(merged)
    assert "F2, F28: `python -m tests.history --times 2 F2`, recorded 2026-01-02" in faults_block(merged)


def test_every_row_of_the_record_still_exists() -> None:
    recorded = FaultMatrix.recorded()

    assert recorded.with_rows([], BY_NAME) == recorded
    assert "F27" in durability_block(recorded)

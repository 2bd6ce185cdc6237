"""The scenario runner of notebook 09: a design is played on a real stack, and its promises are judged."""

from pathlib import Path

import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab import RetryPolicy, SaleBrief, SaleDesign, run_sale, theory
from overload_demo.lab.stack import Stack
from overload_demo.load.plan import Until

BRIEF = SaleBrief(customers_per_s=100, sale_s=1.0, job_s=0.02, done_within_s=30.0)


@pytest.mark.course
@pytest.mark.anyio
async def test_a_sale_accounts_for_every_customer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = await run_sale(BRIEF, SaleDesign(workers=2, bound=1_000, retry=RetryPolicy(attempts=3, budget=0.2)))

    assert [one.holds for one in result.promises] == [True] * 5, repr(result)
    assert Stack.current is None
    assert "2 workers, bound 1,000" in repr(result)


@pytest.mark.course
@pytest.mark.anyio
async def test_a_sale_without_room_breaks_the_promise_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = await run_sale(BRIEF, SaleDesign(workers=1, bound=1))

    broken = [one.text for one in result.promises if not one.holds]
    assert broken == ["99 % of the customers are served"], repr(result)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "design",
    [
        SaleDesign(0, 10),
        SaleDesign(99, 10),
        SaleDesign(1, 0),
        SaleDesign(1, 2.5),  # type: ignore[arg-type]
        SaleDesign(1, None, RetryPolicy(until=Until.DONE)),
    ],
)
async def test_a_design_that_cannot_be_played_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, design: SaleDesign
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match=r"workers|bound|until"):
        await run_sale(BRIEF, design)


def test_the_fewest_workers_use_the_queue() -> None:
    assert theory.fewest_workers(300, 40, 60, 8) == 7
    assert theory.fewest_workers(300, 40, 60, 0) == 8
    assert theory.fewest_workers(1, 40, 60, 8) == 1

"""False verdicts of notebook 09's grader, right and broken files under CPU load: ``python -m experiments.gradings``.

Adds ``--gradings`` of them to the record, or begins a new one (``--new``).
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from experiments.bench.record import RESULTS, Place
from overload_demo.course import grade

FILE = RESULTS / "gradings.json"
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
BROKEN = {
    "1_pop.py": "lost",
    "2_acknowledge.py": "lost",
    "3_fence.py": "result changed",
    "4_idempotent.py": "enqueued twice",
    "5_bound.py": "too late",
    "6_budget.py": "started too often",
}
BUSY_A_CORE = 2  # loops that use all they get


class Gradings(BaseModel):
    """All gradings of a record. ``false``: each verdict that was not the expected one; ``seconds`` of each grading."""

    place: Place
    busy_loops: int
    right: int = 0
    broken: int = 0
    false: list[str] = []
    seconds: list[float] = []


async def grade_all(record: Gradings, gradings: int, at_once: int) -> None:
    """Grade the files in turn, ``at_once`` at the same time."""
    counts = Counter({"next": record.right + record.broken})
    last = counts["next"] + gradings

    async def one_after_the_other() -> None:
        while counts["next"] < last:
            number, counts["next"] = counts["next"], counts["next"] + 1
            name, is_broken = list(BROKEN)[number // 2 % len(BROKEN)], number % 2 == 1
            folder = NOTEBOOKS / "queues" if is_broken else NOTEBOOKS / "solutions" / "queues"
            began = time.monotonic()
            verdict = await grade(folder / name)
            record.seconds.append(round(time.monotonic() - began, 2))
            record.broken, record.right = record.broken + is_broken, record.right + (not is_broken)
            if (verdict.status, verdict.kind) != (("broken", BROKEN[name]) if is_broken else ("holds", "")):
                record.false.append(f"{'broken' if is_broken else 'right'} {verdict!r}")

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


def main(
    gradings: Annotated[int, typer.Option(min=1, help="How many to add to the record.")] = 200,
    at_once: Annotated[int, typer.Option(min=1, help="How many at the same time.")] = 2,
    new: Annotated[bool, typer.Option("--new", help="Begin a new record.")] = False,
) -> None:
    """Grade under CPU load and write the record; exit code 1 after a false verdict."""
    loops = BUSY_A_CORE * (os.cpu_count() or 1)
    record = Gradings(place=Place.here("experiments.gradings", RESULTS), busy_loops=loops)
    if FILE.exists() and not new:
        record = Gradings.model_validate_json(FILE.read_bytes())
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        asyncio.run(grade_all(record, gradings, at_once))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    FILE.write_text(record.model_dump_json(indent=1) + "\n")
    print(f"{record.right} right and {record.broken} broken files graded, {len(record.false)} false verdicts")
    print(*record.false, sep="\n")
    raise typer.Exit(1 if record.false else 0)


if __name__ == "__main__":
    typer.run(main)

"""The documents with generated blocks, each between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``."""

from collections.abc import Callable
from pathlib import Path

from experiments import course, live_class, student_cost
from experiments.fault_matrix import FaultMatrix, durability_block, faults_block
from experiments.readme import measured, reference
from experiments.readme.recordings import recordings_block
from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[2]

Blocks = dict[str, str]


DOCUMENTS: dict[Path, Callable[[], Blocks]] = {
    ROOT / "README.md": measured.front_page,
    ROOT / "overload_demo" / "README.md": lambda: {"durability": durability_block(FaultMatrix.recorded())},
    ROOT / "overload_demo" / "OPERATIONS.md": reference.blocks,
    ROOT / "experiments" / "README.md": lambda: measured.experiments_page() | {"recordings": recordings_block()},
    ROOT / "tests" / "README.md": lambda: {"faults": faults_block(FaultMatrix.recorded())},
    ROOT / "notebooks" / "LECTURE.md": lambda: {"class": live_class.class_block(live_class.LiveClass.recorded())},
    ROOT / "notebooks" / "README.md": lambda: {
        "cost": student_cost.cost_block(student_cost.StudentCost.recorded()),
        "figures": course.figures_block(course.TellingFigure.all_recorded()),
    },
}


def bring_up_to_date() -> None:
    """Update the generated blocks of every document."""
    for path, blocks in DOCUMENTS.items():
        path.write_text(with_blocks(path.read_text(), blocks()))


def with_blocks(text: str, blocks: Blocks) -> str:
    """Return the text with each block between its markers. Raises :class:`OverloadDemoError` without markers."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, begins, rest = text.partition(begin)
        _, ends, after = rest.partition(end)
        if not (begins and ends):
            raise OverloadDemoError(f"there is no {begin} … {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    return text

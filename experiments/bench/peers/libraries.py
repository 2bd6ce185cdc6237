"""The libraries of ``libraries.toml``, and the environments that they are installed in."""

import json
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[3]
# The route runs on the same web stack for all.
WEB = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "hiredis")
VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({one: m.version(one) for one in sys.argv[1:]}))"


class Worker(BaseModel):
    """One worker process by its documented command; ``most_jobs`` keeps a drain within twenty seconds (2 cores)."""

    model_config = ConfigDict(frozen=True)

    name: str
    command: str
    at_once: str
    most_jobs: int = 10_000


class Library(BaseModel):
    """A job queue: its packages, the kind of its endpoint, its workers (the first has all defaults).

    ``killed`` is what happens to a job whose worker is killed (``kill -9``) while it runs, with the measured settings
    and by its documentation or source. ``result`` is what is kept of a finished job.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    endpoint: Literal["async def", "def in a thread", "async, a thin route"]
    workers: tuple[Worker, ...]
    killed: str
    result: str

    @property
    def module(self) -> str:
        """The module of its app."""
        return f"experiments.bench.peers.with_{self.name.lower()}"


class Contestant(BaseModel):
    """An installed library, and the interpreter that it is installed for."""

    model_config = ConfigDict(frozen=True)

    about: Library
    versions: dict[str, str]
    python: Path


def _read() -> tuple[Library, ...]:
    data = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return tuple(Library.model_validate(one) for one in data["library"])


OURS, *LIBRARIES = _read()


def installed(libraries: list[Library], environments: Path | None) -> list[Contestant]:
    """Return the libraries that can be measured, in order; print which ones are left out.

    With ``environments``, a folder, each library except this package has a virtual environment there; a missing one is
    created.
    """
    found = []
    for library in libraries:
        python = Path(sys.executable)
        if environments is not None and library is not OURS:
            python = environments.absolute() / library.name / "bin" / "python"
            if _versions(python, library) is None:
                _create(python.parents[1], library)
        versions = _versions(python, library)
        if versions is None:
            print(f"{library.name} is left out: {' and '.join(library.packages)} not installed")
        else:
            found.append(Contestant(about=library, versions=versions, python=python))
    return found


def _versions(python: Path, library: Library) -> dict[str, str] | None:
    """Return the versions of the library's packages; None when one is missing."""
    if not python.exists():
        return None
    outcome = subprocess.run([python, "-c", VERSIONS, *library.packages], capture_output=True, text=True)
    return dict(json.loads(outcome.stdout)) if outcome.returncode == 0 else None


def _create(folder: Path, library: Library) -> None:
    """Create an environment with the newest release, this project, and the web stack in the versions used here."""
    print(f"creating an environment for {library.name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    commands: list[tuple[str | Path, ...]] = [
        (sys.executable, "-m", "venv", folder),
        (*pip, "--no-deps", "--editable", ROOT),
        (*pip, *(f"{name}=={version(name)}" for name in WEB), *library.requirements),
    ]
    for command in commands:
        outcome = subprocess.run(command, capture_output=True, text=True)
        if outcome.returncode != 0:
            raise OverloadDemoError(f"no environment for {library.name}: {outcome.stderr.strip().splitlines()[-1]}")

"""Which interpreter a library runs in: this one, or one of an environment where it is alone and the newest."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from experiments.bench.peers.libraries import OURS, Library
from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[3]
# What serves the route must be the same for all.
WEB = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "hiredis")
TELL = "import importlib.metadata as m, json, sys; print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"


class Contestant(BaseModel):
    """A library that is installed, and the interpreter it is installed for."""

    model_config = ConfigDict(frozen=True)

    about: Library
    versions: dict[str, str]
    python: Path


def installed(libraries: list[Library], environments: Path | None) -> list[Contestant]:
    """Those that can be measured, in order; says which ones are left out.

    With ``environments``, a folder, each library but ours has an environment of its own in there, made where missing.
    """
    found = []
    for library in libraries:
        python = Path(sys.executable)
        if environments is not None and library is not OURS:
            python = environments.absolute() / library.name / "bin" / "python"
            if _versions(python, library) is None:
                _make(python.parents[1], library)
        versions = _versions(python, library)
        if versions is None:
            print(f"{library.name} is left out: {' and '.join(library.packages)} not installed")
        else:
            found.append(Contestant(about=library, versions=versions, python=python))
    return found


def _versions(python: Path, library: Library) -> dict[str, str] | None:
    """The versions of its packages there; None when one is missing."""
    if not python.exists():
        return None
    told = subprocess.run([python, "-c", TELL, *library.packages], capture_output=True, text=True)
    return dict(json.loads(told.stdout)) if told.returncode == 0 else None


def _make(folder: Path, library: Library) -> None:
    """A new environment with the newest release, this project, and the web stack in the versions used here."""
    print(f"making an environment for {library.name}", flush=True)
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

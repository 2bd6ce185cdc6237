"""Run a command of the package without paying for its imports each time.

A fork server (:mod:`multiprocessing.forkserver`) imports the package once. Each command is a process forked from it,
with its own environment, working directory, standard streams and exit code, as ``python -m`` would start it.
Tests of the start itself (environment, working directory on the path, missing packages) use ``subprocess``.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory

PRELOADED = [
    "overload_demo.cli.application",
    "overload_demo.api.app",
    "overload_demo.worker.loop",
    "overload_demo.load",
]
STREAMS = {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY | os.O_CREAT, "stderr": os.O_WRONLY | os.O_CREAT}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


def start_server() -> None:
    """Start the fork server; it ends with this process."""
    forkserver.ensure_running()


def run_module(
    module: str,
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
    timeout_s: float = 60.0,
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m module arguments`` to its end; past ``timeout_s`` kill it and raise ``TimeoutExpired``."""
    command = [module, *arguments]
    with TemporaryDirectory() as name:
        streams = Path(name)
        (streams / "stdin").write_text(input)
        process = _context.Process(target=_run, args=(command, streams, cwd or Path.cwd(), dict(env or os.environ)))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout_s)
        output, errors = ((streams / stream).read_text() for stream in ("stdout", "stderr"))
        return subprocess.CompletedProcess(command, process.exitcode, output, errors)


def _run(command: Sequence[str], streams: Path, cwd: Path, environment: dict[str, str]) -> None:
    """In the forked process: become the command."""
    for number, (name, flags) in enumerate(STREAMS.items()):
        os.dup2(os.open(streams / name, flags), number)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing had replaced it
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(command)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)

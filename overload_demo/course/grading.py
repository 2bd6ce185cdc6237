"""Grade a repaired queue of notebook 09: its copies for the student, and one referee process for each grading."""

import asyncio
import contextlib
import filecmp
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from overload_demo.errors import ConfigurationError
from overload_demo.lab.history import Grading, Step
from overload_demo.process import PYTHON_M

# The files as they are shipped: beside the notebooks, or in a wheel, which has no notebooks, in this package.
QUEUES = (Path(__file__).parents[2] / "notebooks" / "queues", Path(__file__).with_name("queues"))
REPAIRS = Path("repairs")  # the student's copies, below the notebooks' directory
WITHIN_S = 60.0


def broken_queues() -> list[Path]:
    """Copy the broken queues into ``repairs``, except those that are there; returns the copies, in order.

    Raises :class:`ConfigurationError` if it cannot be written.
    """
    try:
        REPAIRS.mkdir(exist_ok=True)
        for shipped in _shipped().values():
            if not (REPAIRS / shipped.name).exists():
                shutil.copyfile(shipped, REPAIRS / shipped.name)
    except OSError as error:
        reason = f"cannot write {REPAIRS.absolute()}: {error.strerror}; copy the notebooks to a folder of your own"
        raise ConfigurationError(reason) from None
    return [REPAIRS / name for name in _shipped()]


async def grade(file: object) -> Any:
    """Grade a repaired queue; returns a :class:`Grading`, and ``...`` for ``...``.

    Tries all faults of its rung on real processes and a Valkey of its own, in a second or a few. Whatever the file
    does, it returns within 60 s. Two gradings at the same time share nothing. Cancellable.
    """
    if file is ... or file is None:
        return ...
    if not isinstance(file, str | Path):
        return Grading("your answer", "ended", broken='a grading needs the path of a file, like "repairs/1_pop.py"')
    name, shipped = Path(file).name, _shipped()
    if name not in shipped:
        return Grading(name, "ended", broken=f"a grading needs one of {', '.join(shipped)}")
    try:
        is_same = filecmp.cmp(file, shipped[name], shallow=False)
    except OSError as error:
        return Grading(name, "ended", broken=f"cannot read {file}: {error.strerror}; your copy is repairs/{name}")
    facts = await _report(str(Path(file).absolute()), name)  # noqa: ASYNC240 - no file is touched
    steps = tuple(Step(*step) for step in facts.pop("steps", ()))
    return Grading(**facts | {"is_changed": not is_same}, steps=steps)


async def _report(path: str, name: str) -> dict[str, Any]:
    """Run a referee in a session of its own, in an empty folder, and end every process of the session."""
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
        with (Path(folder) / "errors.log").open("wb") as errors:
            referee = await asyncio.create_subprocess_exec(
                *(*PYTHON_M, "overload_demo.course.counterexamples", path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                start_new_session=True,
            )
        assert referee.stdin is not None and referee.stdout is not None
        report = b""
        try:
            async with asyncio.timeout(WITHIN_S):
                report = await referee.stdout.read()
        except TimeoutError:
            reason = f"ended by the grader: no verdict within {WITHIN_S:g} s"
            return {"file": name, "status": "ended", "broken": reason}
        finally:
            referee.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(referee.pid, signal.SIGKILL)
            await referee.wait()
        try:
            return dict(json.loads(report))
        except ValueError:
            last = (Path(folder) / "errors.log").read_text(errors="replace").strip().splitlines()[-1:]
            return {"file": name, "status": "ended", "broken": f"the grader has failed: {''.join(last)[:300]}"}


def _shipped() -> dict[str, Path]:
    found = {path.name: path for folder in QUEUES for path in sorted(folder.glob("[1-6]_*.py"))}
    if not found:
        raise ConfigurationError("the queues of notebook 09 are missing: install the package again")
    return found

"""Where a run keeps what it writes."""

import contextlib
from datetime import datetime
from pathlib import Path

from overload_demo.errors import ConfigurationError


def new_run_folder(runs: Path, name: str) -> Path:
    """A new folder in ``runs``, named after the moment. Raises :class:`ConfigurationError` if it cannot be made."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = runs / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"cannot make a run folder in {runs.absolute()}: {error.strerror}; "
                "name one that can be written (--output, or runs= of Stack.start), or use a copy of the course"
            ) from None
        return folder
    raise ConfigurationError(f"cannot make a run folder in {runs}: too many runs in one second")


def tail(file: Path, lines: int) -> str:
    """The last lines of a log; empty when there is none."""
    with contextlib.suppress(OSError):
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    return ""

"""What this machine allows."""

import shutil


class NotHereError(Exception):
    """This machine does not allow the fault; the text says why."""


def needs(program: str) -> str:
    """Where a program is; raises :class:`NotHereError`."""
    if (path := shutil.which(program)) is None:
        raise NotHereError(f"needs {program}")
    return path

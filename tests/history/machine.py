"""What this machine can run."""

import shutil


class NotHereError(Exception):
    """This machine cannot run the fault; the text is the reason."""


def needs(program: str) -> str:
    """Return the path of a program; raises :class:`NotHereError` without it."""
    if (path := shutil.which(program)) is None:
        raise NotHereError(f"needs {program}")
    return path

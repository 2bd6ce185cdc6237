"""Rows of numbers in memory that processes share: each process writes one row, and whoever is asked adds them up.

The memory belongs to the parent, so what a process has counted outlives it, and its successor counts on in the same
row. A number is 8 aligned bytes that one thread writes, so a reader sees it before or after a change, never half.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import IO

from overload_demo.errors import ConfigurationError

ROW_BYTES = 4_096
NUMBERS = ROW_BYTES // 8
LAYOUT, ALIVE, FIRST = 0, 1, 2  # what the row's numbers mean; 1 while its process lives; the first of them


def shared_memory(rows: int) -> IO[bytes]:
    """A nameless file of so many empty rows, for child processes to inherit; closing it frees what nobody has mapped.

    Raises :class:`ConfigurationError` where there is no room for temporary files.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - its owner closes it
        file.truncate(rows * ROW_BYTES)
    except OSError as error:
        raise ConfigurationError(f"cannot make a temporary file: {error.strerror}") from None
    return file


class Rows:
    """All rows of a shared memory, by its descriptor; without one, a single row of this process's own."""

    def __init__(self, fd: int = -1) -> None:
        size = ROW_BYTES if fd < 0 else os.fstat(fd).st_size
        self._numbers = memoryview(mmap.mmap(fd, size)).cast("d")

    def __getitem__(self, row: int) -> "memoryview[float]":
        """One row, to be read and written."""
        return self._numbers[row * NUMBERS : (row + 1) * NUMBERS]

    def of(self, layout: float) -> Iterator["memoryview[float]"]:
        """The rows that were written by this layout: after an update, others may be left of the processes before."""
        every = (self[row] for row in range(len(self._numbers) // NUMBERS))
        return (row for row in every if row[LAYOUT] == layout)

    def vacate(self, row: int) -> None:
        """The row's process has ended: what it counted stays, what it had does not."""
        self[row][ALIVE] = 0.0

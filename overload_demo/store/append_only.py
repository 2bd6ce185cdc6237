"""Find damage in a store's append-only files, keep a copy, and drop it.

The server would drop everything from the first damage to the end, without a copy. Here an incomplete command at the end
is dropped alone, and damage with whole commands behind it on demand only. The files have no checksums: broken framing,
unknown command names and a damaged base (the server checks its CRC) are found, a flipped bit in a value or key is not.
"""

import mmap
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from overload_demo.errors import StoreUnavailableError
from overload_demo.store.data_dir import DATA, open_file, replace_file

MANIFEST = "appendonly.aof.manifest"
MISSING_POLL_S = 0.05
COUNT, LENGTH = re.compile(rb"\*(\d{1,7})\r\n"), re.compile(rb"\$(\d{1,10})\r\n")
START = re.compile(rb"\*\d{1,7}\r\n\$\d{1,10}\r\n[A-Za-z]")
PREAMBLE = re.compile(rb"(?:REDIS|VALKEY)\d.*?\xff.{8}(?=\*\d+\r\n\$\d+\r\n)", re.DOTALL)  # before version 7

Data = bytes | mmap.mmap


class Gap(NamedTuple):
    """Bytes of a file that hold no whole command; after damage inside a transaction, all of it."""

    start: int
    end: int
    is_tail: bool  # no whole command was found behind it


class Damage(NamedTuple):
    """What is damaged in one file."""

    file: Path
    gaps: list[Gap]
    has_more: bool  # there are commands behind it, in this file or in a later one
    size: int  # bytes in the gaps
    commands: int  # known to be in the gaps, those of dropped transactions included


def files_of(data_dir: Path) -> list[Path]:
    """The data files in the order in which the server loads them; before version 7 it is a single one."""
    try:
        names = re.findall(r"^file (\S+)", (data_dir / DATA / MANIFEST).read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return [file for file in [data_dir / "appendonly.aof"] if file.exists()]
    return [data_dir / DATA / Path(name).name for name in names]


def refuse_if_missing(data_dir: Path) -> None:
    """Raise :class:`StoreUnavailableError` when the manifest or a data file that it lists was removed."""
    before = None
    while (data_dir / DATA).exists():
        listed = [data_dir / DATA / MANIFEST, *files_of(data_dir)]
        missing = next((file for file in listed if not file.exists()), None)
        if missing is None:
            return
        if missing == before:
            raise StoreUnavailableError(f"{missing} was removed while in use: stopped; start again")
        before = missing
        time.sleep(MISSING_POLL_S)  # a rewrite changes the manifest and then deletes


def find_damage(data_dir: Path, unknown: str = "") -> Damage | None:
    """The first file that is damaged; ``unknown`` is a command name that the server refused, which counts as damage."""
    aofs = [file for file in files_of(data_dir) if file.suffix == ".aof"]  # of a snapshot the server checks the CRC
    files = [file for file in aofs if file.exists() and file.stat().st_size]
    for number, file in enumerate(files):
        data = _mapped(file)
        if gaps := list(find_gaps(data, unknown)):
            is_tail = len(gaps) == 1 and gaps[0].is_tail and number == len(files) - 1
            commands = sum(len(START.findall(data, gap.start, gap.end)) for gap in gaps)
            return Damage(file, gaps, not is_tail, sum(gap.end - gap.start for gap in gaps), commands)
    return None


def find_gaps(data: Data, unknown: str = "") -> Iterator[Gap]:
    """The bytes outside whole commands and whole transactions, in order."""
    kept_to = 0
    for start, end in _whole(data, unknown):
        if start > kept_to:
            yield Gap(kept_to, start, is_tail=False)
        kept_to = end
    if kept_to < len(data):
        at = kept_to
        while end := _command(data, at, unknown)[1]:  # of a transaction without its end
            at = end
        yield Gap(kept_to, len(data), is_tail=_next_command(data, at, at, unknown) == len(data))


def _whole(data: Data, unknown: str) -> Iterator[tuple[int, int]]:
    """Start and end of runs of single commands, and of whole transactions.

    Damage inside a transaction takes all of it: up to its EXEC, or to the next command when that is damaged as well.
    """
    preamble = PREAMBLE.match(data)
    at = end = last = preamble.end() if preamble else 0
    start, is_open, is_suspect = 0, False, False  # suspect: perhaps the rest of a transaction
    while at < len(data):
        name, after = _command(data, at, unknown)
        if not after:
            resumed = _next_command(data, last, at, unknown)
            # A damaged length has swallowed the start of the next command, or a damaged count has left words over.
            end = last if resumed < at or LENGTH.match(data, at) else at
            at, is_suspect = resumed, True
            continue
        last = at
        if at != end or name == b"MULTI":
            if end > start and not is_open:
                yield start, end
            start, is_open = at, name == b"MULTI"
        is_suspect = is_suspect and name != b"MULTI"
        if name == b"EXEC" and (is_open or is_suspect):
            if is_open:
                yield start, after
            start, is_open, is_suspect = after, False, False
        at = end = after
    if end > start and not is_open:
        yield start, end


def drop(damage: Damage, copies: Path) -> Path:
    """Take the gaps out of the file, durably and atomically; returns the copy that was made before."""
    copy, data = keep_copy(damage.file, copies), memoryview(_mapped(damage.file))
    starts, ends = [0, *(gap.end for gap in damage.gaps)], [*(gap.start for gap in damage.gaps), len(data)]
    replace_file(damage.file, (data[start:end] for start, end in zip(starts, ends, strict=True)), durable=True)
    return copy


def keep_copy(file: Path, copies: Path) -> Path:
    """Copy a file into the folder ``copies``, durably, once for each of its states; raises OSError."""
    changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    copy = copies / f"{file.name}.damaged-{changed:%Y%m%dT%H%M%S.%f}"
    if not copy.exists():
        replace_file(copy, [memoryview(_mapped(file))], durable=True)
    return copy


def _mapped(file: Path) -> mmap.mmap:
    """Map a file that is not empty into memory; unmapped with the last reference."""
    with os.fdopen(open_file(file, os.O_RDONLY), "rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _command(data: Data, at: int, unknown: str) -> tuple[bytes, int]:
    """The name of the command at ``at``, in capitals, and its end; end 0 when there is no whole command."""
    if data[at : at + 1] == b"#":  # a time stamp
        return b"", data.find(b"\n", at) + 1
    head = COUNT.match(data, at)
    if not head or not int(head[1]):
        return b"", 0
    at, name = head.end(), b""
    for _ in range(int(head[1])):
        length = LENGTH.match(data, at)
        if not length:
            return b"", 0
        start, at = length.end(), length.end() + int(length[1]) + 2
        if data[at - 2 : at] != b"\r\n":
            return b"", 0
        name = name or data[start : at - 2].upper()
    if unknown and name.decode(errors="replace").replace("\r", " ").replace("\n", " ") == unknown.upper():  # as logged
        return b"", 0
    return name, at


def _next_command(data: Data, after: int, beyond: int, unknown: str) -> int:
    """The start of the next whole command that ends beyond a byte; the end of the file when there is none."""
    starts = (match.start() for match in START.finditer(data, after + 1))
    return next((at for at in starts if _command(data, at, unknown)[1] > beyond), len(data))

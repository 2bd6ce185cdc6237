"""Finding damage in an append-only file: every truncation and every flipped bit of a small one."""

import re

import pytest

from overload_demo.store.append_only import Gap, find_gaps


def packed(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


MULTI, EXEC = packed("MULTI"), packed("EXEC")
UNITS = [
    packed("SELECT", "0"),
    packed("SET", "a", "x\r\ny"),
    MULTI + packed("INCR", "b") + packed("RPUSH", "c", "d" * 14) + EXEC,
    packed("SET", "eeee", ""),
    MULTI + packed("DEL", "a") + EXEC,
    packed("HSET", "f", "g", "h"),
]
FILE = b"".join(UNITS)
ENDS = {sum(len(unit) for unit in UNITS[:count]) for count in range(len(UNITS) + 1)}


NAME = re.compile(rb"\*\d+\r\n\$\d+\r\n([^\r\n]+)\r\n")
KNOWN = set(NAME.findall(FILE))


def repaired(data: bytes) -> tuple[bytes, list[Gap]]:
    """The repaired file and its gaps, once the server has named the first unknown command."""
    strange = [name.decode(errors="replace") for name in NAME.findall(data) if name.upper() not in KNOWN]
    gaps = [*find_gaps(data, strange[0] if strange else "")]
    for gap in reversed(gaps):
        data = data[: gap.start] + data[gap.end :]
    return data, gaps


def test_a_sound_file_has_no_gap() -> None:
    assert [*find_gaps(FILE)] == [*find_gaps(b"")] == []


@pytest.mark.parametrize("tail", [b"", bytes(64), b"\xff\xfe*3$garbage"], ids=["cut", "zeros", "garbage"])
def test_any_truncation_keeps_whole_units_and_is_a_tail(tail: bytes) -> None:
    for length in range(len(FILE) + 1):
        begins = max(end for end in ENDS if end <= length)
        gaps = [*find_gaps(FILE[:length] + tail)]
        assert gaps == ([] if begins == length and not tail else [Gap(begins, length + len(tail), is_tail=True)])


def test_any_flipped_bit_costs_the_unit_it_is_in_and_no_other() -> None:
    for at in range(len(FILE)):
        number = max(count for count in range(len(UNITS)) if sum(map(len, UNITS[:count])) <= at)
        for bit in range(8):
            data = bytearray(FILE)
            data[at] ^= 1 << bit
            rest, gaps = repaired(bytes(data))
            whole, without = bytes(data), b"".join(UNITS[:number] + UNITS[number + 1 :])
            assert rest in {whole, without}, (at, bit)
            if rest == without and number < len(UNITS) - 1:
                assert not any(gap.is_tail for gap in gaps), (at, bit)


def test_a_refused_name_is_damage() -> None:
    begin = len(UNITS[0])
    assert [*find_gaps(FILE.replace(b"\nSET\r\n$1\r\na", b"\nXET\r\n$1\r\na"), "XET")] == [
        Gap(begin, begin + len(UNITS[1]), is_tail=False)
    ]


def test_the_snapshot_at_the_start_of_an_older_file_is_no_damage() -> None:
    preamble = b"REDIS0009\xfa\x00\r\n*x\xff" + b"12345678"
    assert [*find_gaps(preamble + FILE)] == []
    assert [*find_gaps(preamble + FILE + bytes(9))] == [
        Gap(len(preamble) + len(FILE), len(preamble + FILE) + 9, is_tail=True)
    ]

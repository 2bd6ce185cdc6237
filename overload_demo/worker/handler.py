"""Which function does a job, and how it is called."""

import asyncio
import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.work import Slot, process


@dataclass(frozen=True)
class JobContext:
    """What a handler may need to be idempotent: the same ``job_id`` comes again after a crash, with a later attempt."""

    job_id: str
    attempt: int


Handler = Callable[[dict[str, Any], JobContext], Any]


def load_handler(settings: Settings, slot: Slot, runner: "LazyRunner") -> Handler:
    """The function that does a job: the demo's own, or ``WORKER_HANDLER=module:function``, sync or async.

    A handler takes the payload (a dict) and, if it has a second parameter, the :class:`JobContext`; what it returns
    must be JSON. Async ones run on ``runner``. Raises :class:`ConfigurationError` if there is no such function.
    """
    if settings.worker_handler is None:
        delay_s = settings.worker_processing_delay
        return lambda payload, _: process(payload, delay_s=delay_s, slot=slot)
    module_name, _, function_name = settings.worker_handler.partition(":")
    with contextlib.suppress(FileNotFoundError):  # a working directory that was removed
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last: a queue.py there must not shadow the standard library's
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        wants_context = len(inspect.signature(function).parameters) > 1
    except Exception as error:
        raise ConfigurationError(f"WORKER_HANDLER: cannot load {settings.worker_handler!r}: {error}") from None

    def handle(payload: dict[str, Any], context: JobContext) -> Any:
        result = function(payload, context) if wants_context else function(payload)
        return runner.run(result) if inspect.iscoroutine(result) else result

    return handle


class LazyRunner:
    """One event loop for all async handlers, made at the first of them."""

    _runner: asyncio.Runner | None = None

    def run(self, coroutine: Any) -> Any:
        """Run to the end and return the result."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(coroutine)

    def close(self) -> None:
        """End what handlers have left running; the next :meth:`run` begins anew."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

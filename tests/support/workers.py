"""The worker's command on a shared store, with a handler written for one test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from overload_demo.process import Child
from overload_demo.store.connect import Store
from tests.support.running import child, make_settings, queue_variables, serving_api


class HandlerLab:
    """An API on a separate queue; :meth:`worker` is a child process that runs the queue's jobs with one handler."""

    def __init__(self, folder: Path, store: Store, prefix: str, client: httpx.Client) -> None:
        self.folder, self.client, self._own = folder, client, queue_variables(store, prefix)

    @contextmanager
    def worker(self, code: str, *arguments: str, **variables: object) -> Iterator[Child]:
        """A started worker whose handler is the function ``handle`` of ``code``."""
        name = f"handler_{os.urandom(4).hex()}"
        (self.folder / f"{name}.py").write_text(code)
        own = self._own | {"WORKER_HANDLER": f"{name}:handle"}
        part = child("overload_demo.worker", *arguments, folder=self.folder, **(own | variables))
        part.start()
        try:
            yield part
        finally:
            part.stop()


@contextmanager
def handler_lab(folder: Path, store: Store) -> Iterator[HandlerLab]:
    """Serve the API of an empty queue for the length of the block."""
    settings = make_settings(folder)
    with serving_api(settings, store) as client:
        yield HandlerLab(folder, store, settings.overload_key_prefix, client)


def exit_code(worker: Child) -> int | None:
    """The exit code of a worker that has ended, None while it runs."""
    assert worker._process is not None
    return worker._process.poll()

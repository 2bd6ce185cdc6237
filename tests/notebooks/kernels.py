"""Real Jupyter kernels for tests: a kernel that runs notebooks, can be interrupted and killed, and leaves nothing."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SPIKE = ROOT / "notebooks" / "04_spike.ipynb"
STOP = "await stack.stop()"


def environment(folder: Path, level: str = "test") -> dict[str, str]:
    """Jupyter's directories below ``folder`` and nothing of the developer's; marks each process that inherits it.

    Its proxies are dead: nothing here may need one.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UPSTASH", "OVERLOAD", "WORKER", "QUEUE"))}
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    own = {f"JUPYTER_{name}": str(folder / "jupyter" / name.lower()) for name in names}
    own |= {f"JUPYTERLAB_{name}": str(folder / "lab" / name.lower()) for name in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    own |= {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    return clean | own | {"IPYTHONDIR": str(folder / "ipython"), "OVERLOAD_LEVEL": level}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every marked process, whatever its parent, session or directory: kernels, parts, load, stores."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and _belongs_to(process, folder):
                found.append(process)
    return found


def _belongs_to(process: psutil.Process, folder: Path) -> bool:
    # a Redis writes its title over its environment, but its working directory is its data directory
    marked = process.environ().get("IPYTHONDIR") == str(folder / "ipython")
    return marked or Path(process.cwd()).is_relative_to(folder)


def command_lines(processes: Sequence[psutil.Process]) -> list[str]:
    """What runs, for the message of a failed test."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


@contextlib.contextmanager
def no_process_left(folder: Path, timeout_s: float = 20.0) -> Iterator[None]:
    """Fail when a marked process outlives the block; end it in any case."""
    try:
        yield
        wait_until("no kernel, part, load process or store is left", lambda: not processes_of(folder), timeout_s)
    finally:
        for process in processes_of(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()


def read(path: Path, **parameters: object) -> NotebookNode:
    """A notebook in memory, with other values in its parameter cell; the file stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    if parameters:
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
        for name, value in parameters.items():
            cell.source, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", cell.source)
            assert found == 1, f"no parameter {name} in the first code cell"
    return notebook


def first_spike(**parameters: object) -> NotebookNode:
    """Notebook 04 without its second and third run."""
    notebook = read(SPIKE, **parameters)
    end = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## Once more"))
    notebook.cells = [*notebook.cells[:end], notebook.cells[-1]]
    return notebook


def replace(notebook: NotebookNode, old: str, new: str) -> NotebookNode:
    """The notebook with ``old``, which must stand in exactly one code cell, replaced."""
    [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
    cell.source = cell.source.replace(old, new)
    return notebook


def cells(*sources: str) -> NotebookNode:
    """A notebook of these code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def text_of(notebook: NotebookNode) -> str:
    """All text its cells have put out, errors included."""
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            plain = output.get("data", {}).get("text/plain", "")
            parts.append(output.get("text", "") or plain or "\n".join(output.get("traceback", [])))
    return "\n".join(parts)


class Kernel:
    """One kernel process, driven from a separate thread so that a test can interfere while cells run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread, self._loop = ThreadPoolExecutor(1), asyncio.Runner()
        self._manager = AsyncKernelManager(kernel_name="python3")

    def start(self, notebook: NotebookNode) -> "Future[NotebookNode]":
        """Run All, in the background; the future raises :class:`CellExecutionError` when a cell does."""
        return self._thread.submit(self._execute, notebook)

    def run(self, *notebooks: NotebookNode) -> str:
        """Run All, one notebook after the other, and return the text of the last one."""
        for notebook in notebooks:
            self.start(notebook).result()
        return text_of(notebooks[-1])

    def evaluate(self, expression: str) -> str:
        """The repr of an expression in the kernel."""
        return self.run(cells(expression))

    @property
    def pid(self) -> int:
        """The kernel's process id."""
        return int(self._manager.provisioner.pid)

    def interrupt(self) -> None:
        """What the ■ button does: SIGINT to the kernel's process group."""
        os.killpg(os.getpgid(self.pid), signal.SIGINT)

    def kill(self) -> None:
        """``kill -9`` of the kernel alone, as the kernel's out-of-memory killer would."""
        os.kill(self.pid, signal.SIGKILL)

    def shut_down(self) -> None:
        """What closing the kernel does."""
        with self._thread:
            self._thread.submit(self._shut_down).result()

    def _execute(self, notebook: NotebookNode) -> NotebookNode:
        client = NotebookClient(notebook, km=self._manager, timeout=300)
        try:
            return self._loop.run(client.async_execute(env=environment(self._folder), cwd=str(self._folder)))
        finally:
            if client.kc is not None:  # nbclient does not close the channels of a kernel it has not started
                client.kc.stop_channels()

    def _shut_down(self) -> None:
        with self._loop:
            if self._manager.has_kernel:
                self._loop.run(self._manager.shutdown_kernel())


@contextlib.contextmanager
def kernel(folder: Path) -> Iterator[Kernel]:
    """A kernel whose working directory is ``folder``; shut down cleanly at the end of the block."""
    one = Kernel(folder)
    try:
        yield one
    finally:
        one.shut_down()


def refusal_of(future: "Future[NotebookNode]") -> str:
    """The name of the exception that has ended a run."""
    error = future.exception(timeout=60)
    assert isinstance(error, CellExecutionError), error
    return error.ename

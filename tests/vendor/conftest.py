"""The standalone store that the vendor's clients talk to."""

from tests.contract.conftest import rest, shared, shared_dir

__all__ = ["rest", "shared", "shared_dir"]

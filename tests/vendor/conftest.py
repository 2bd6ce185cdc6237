"""The standalone store that the vendor's clients talk to."""

from tests.contract.conftest import rest, shared

__all__ = ["rest", "shared"]

"""The command ``overload-demo``."""

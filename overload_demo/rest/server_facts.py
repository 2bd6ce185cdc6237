"""What a server tells of itself, and whether jobs would be safe there."""

from overload_demo.errors import ConfigurationError


def facts(info: str) -> dict[str, str]:
    """The ``name:value`` lines of INFO."""
    return {name: value for name, mark, value in (line.partition(":") for line in info.splitlines()) if mark}


def refuse_unsafe(told: dict[str, str]) -> None:
    """Raise :class:`ConfigurationError` for a server that could lose jobs by its nature, as far as INFO tells."""
    if told.get("cluster_enabled") == "1":
        raise ConfigurationError("the server is a cluster; the queue needs a single server")
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and told.get("maxmemory") != "0":
        raise ConfigurationError(f"the server evicts keys when full ({policy}): set maxmemory-policy noeviction")


LOADING = "it is loading its data"


def why_no_writes(told: dict[str, str]) -> str:
    """Return why the server refuses writes at present, as far as INFO tells; empty if it does not."""
    if told.get("role") == "slave" and told.get("slave_read_only") != "0":
        return "it is a read-only replica"
    return LOADING if told.get("loading") == "1" else ""

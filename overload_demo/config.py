"""All settings: read once from the environment, validated, secrets masked.

A variable is its field's name in capitals: ``worker_poll_interval`` is ``WORKER_POLL_INTERVAL``. The descriptions make
the table in ``OPERATIONS.md``.
"""

import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from overload_demo.errors import ConfigurationError

YEAR_S = 31_536_000
MIN_KEY_LENGTH = 16
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST_NAME = re.compile(r"\*|[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_ELSEWHERE = "upstash_redis_rest_url", "overload_redis_url"  # what makes the store another than the embedded one
_MEMORY = r"^\d{1,15}$|^\d{1,9}[kmg]b?$"


def _default_data_dir() -> Path:
    try:
        return user_data_path("overload_demo")
    except RuntimeError:  # no home directory; DataDir refuses the path in one line
        return Path("~/overload_demo")


class Settings(BaseSettings):
    """Validated settings; construct them with :func:`load_settings`, whose errors are one line."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    # The store
    upstash_redis_rest_url: str | None = Field(
        None, description="Upstash REST endpoint, or several separated by commas: shards; unset = the embedded store"
    )
    upstash_redis_rest_token: SecretStr | None = Field(
        None, description="its token, or one for each endpoint; set both or neither"
    )
    overload_data_dir: Path = Field(default_factory=_default_data_dir, description="directory of the embedded store")
    overload_redis_server: Path | None = Field(None, description="server binary to start instead of the bundled one")
    overload_redis_url: SecretStr | None = Field(None, description="running server to use behind the gateway")
    overload_maxmemory: str = Field(
        "0", pattern=_MEMORY, description="memory limit of each embedded server, e.g. 256mb; 0 = none"
    )
    overload_durability: Literal["always", "everysec"] = Field(
        "always", description="when the embedded server syncs a write to disk: before its reply, or every second"
    )
    overload_log_format: Literal["text", "json"] = Field("text", description="log lines as text or as JSON objects")
    overload_nodes: int = Field(
        1, ge=1, le=12, description="servers of the embedded store: 1, or 6 to 12 for a cluster, half of them replicas"
    )
    overload_min_replicas: int = Field(
        default_factory=lambda given: int(given.get("overload_nodes", 1) > 1 and not any(map(given.get, _ELSEWHERE))),
        ge=0,
        le=5,
        description="replicas that must have a job before its 202, beside the primary's disk; 1 in an embedded cluster,"
        " where with 0 a failover can lose jobs",
    )
    overload_key_prefix: str = Field("", max_length=64, description="prefix of every key of the queue")

    # The worker
    worker_processing_delay: float = Field(2.0, ge=0, le=86_400, description="simulated work, seconds a job")
    worker_poll_interval: float = Field(
        1.0, gt=0, le=3600, description="seconds between polls of an empty queue while the store cannot wake the worker"
    )
    worker_max_poll_interval: float | None = Field(
        None, gt=0, le=3600, description="longest poll interval after back-off, seconds (default 5.0; 10.0 on Upstash)"
    )
    queue_result_ttl: int = Field(
        3600, ge=1, le=10 * YEAR_S, description="seconds a finished job is kept; waiting jobs never expire"
    )
    worker_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._:-]{1,100}$", description="stable name, e.g. w-1 (default: host and free slot)"
    )
    worker_handler: str | None = Field(
        None, description="module:function or module:Class.method that runs a job (default: the demo's own)"
    )
    worker_lease_s: float = Field(30.0, ge=1, le=3600, description="length of a lease, seconds; extended every third")
    worker_job_timeout_s: float = Field(
        300.0, gt=0, le=YEAR_S, description="a job that runs longer counts as interrupted, seconds"
    )
    worker_grace_s: float = Field(
        25.0, ge=0, le=86_400, description="shutdown: seconds for the running job; then it counts as interrupted"
    )
    worker_shards: str | None = Field(
        None, pattern=r"^\d{1,4}(,\d{1,4})*$", description="shards to serve, e.g. 0,3; unset = all"
    )
    worker_max_attempts: int = Field(3, ge=1, le=100, description="interrupted attempts before a job is dead")
    worker_max_batch: int = Field(128, ge=1, le=128, description="most jobs in one lease; a worker may hold two")
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="port of the worker's own /metrics; 0 = a free one; unset = none"
    )
    worker_metrics_host: str = Field("127.0.0.1", min_length=1, description="address that this port is opened on")
    worker_effect_log: Path | None = Field(None, description="file to append each start and effect of a job to")

    # The API
    overload_max_body_bytes: int = Field(65_536, ge=256, le=1_000_000, description="largest accepted body, bytes")
    overload_max_connections: int = Field(
        2_000, ge=8, le=1_000_000, description="most live connections; further ones wait in the kernel"
    )
    overload_connections_mb: int = Field(
        256, ge=1, le=1_000_000, description="most memory for the live connections of a process, MB; lowers their cap"
    )
    overload_request_patience_s: float = Field(20.0, gt=0, le=600, description="request timeout, seconds")
    overload_grace_s: float = Field(
        10.0, ge=0, le=600, description="shutdown: seconds to drain the accept queue, then to finish requests"
    )
    overload_max_queue_depth: int = Field(
        0, ge=0, le=1_000_000_000, description="refuse jobs above this queue depth; 0 = no bound"
    )
    overload_max_wait_s: float = Field(
        0, ge=0, le=YEAR_S, description="refuse jobs that would wait longer, seconds; 0 = no bound"
    )
    overload_api_keys: SecretStr | None = Field(
        None, description="accepted API keys, separated by commas, at least 16 characters each; unset = no key needed"
    )
    overload_allowed_hosts: str | None = Field(
        None,
        description="accepted host names beside loopback names, separated by commas; * = any; unset: any, but only"
        " loopback names on a loopback address",
    )
    overload_docs: bool = Field(True, description="whether the API serves its interactive documentation at /docs")
    overload_api_key: SecretStr | None = Field(None, description="key that the load generator sends; unset = none")
    overload_store_deadline_s: float = Field(5.0, gt=0, le=60, description="longest wait of a request for the store")
    overload_max_batch: int = Field(256, ge=1, le=256, description="most jobs in one enqueue call")

    @field_validator("overload_data_dir", "overload_redis_server", "worker_effect_log", mode="after")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        try:
            return path and path.expanduser()
        except RuntimeError:  # no home directory; DataDir refuses the path in one line
            return path

    @field_validator("upstash_redis_rest_url", mode="after")
    @classmethod
    def _https_unless_loopback(cls, urls: str | None) -> str | None:
        for url in _split(urls):
            parts = urlsplit(url)
            usable = _is_header_text(url) and parts.port != 0  # reading a wrong port raises ValueError
            if parts.scheme not in {"http", "https"} or not parts.hostname or not usable:
                raise ValueError("must look like https://NAME.upstash.io")
            if parts.username or parts.password or parts.query or parts.fragment:
                raise ValueError("must have no user, password, query or fragment; the token has its own variable")
            if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
                raise ValueError("must use https (plain http is for loopback only)")
        each = [url.rstrip("/") for url in _split(urls)]
        if len(set(each)) < len(each):
            raise ValueError("contains the same database twice")
        return ",".join(each) or None

    @field_validator("overload_api_keys", mode="after")
    @classmethod
    def _usable_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        each = _split(keys)
        if any(len(key) < MIN_KEY_LENGTH or not _is_header_text(key) for key in each):
            raise ValueError(f"must be words of at least {MIN_KEY_LENGTH} ASCII characters, separated by commas")
        if len(set(each)) < len(each):
            raise ValueError("contains the same key twice")
        return keys

    @field_validator("overload_allowed_hosts", mode="after")
    @classmethod
    def _host_names(cls, hosts: str | None) -> str | None:
        for host in _split(hosts):
            if not _HOST_NAME.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name, an address without a port, or *")
        return hosts

    @field_validator("upstash_redis_rest_token", "overload_api_key", mode="after")
    @classmethod
    def _fits_a_header(cls, tokens: SecretStr | None, field: ValidationInfo) -> SecretStr | None:
        if tokens is None:
            return None
        text = tokens.get_secret_value().strip()
        each = _split(text) if field.field_name == "upstash_redis_rest_token" else [text]
        if any(not one or not _is_header_text(one) for one in each):
            raise ValueError("must be one word of ASCII characters")
        return SecretStr(",".join(each))

    @field_validator("overload_nodes", mode="after")
    @classmethod
    def _one_or_pairs(cls, nodes: int) -> int:
        if nodes != 1 and (nodes < 6 or nodes % 2):
            raise ValueError("must be 1, or an even number from 6 on: three primaries at least, each with a replica")
        return nodes

    @model_validator(mode="after")
    def _upstash_both_or_neither(self) -> Self:
        given, missing = ("URL", "TOKEN") if self.upstash_redis_rest_url else ("TOKEN", "URL")
        if (self.upstash_redis_rest_url is None) != (self.upstash_redis_rest_token is None):
            raise ValueError(
                f"UPSTASH_REDIS_REST_{given} is set but UPSTASH_REDIS_REST_{missing} is not: set both or neither"
            )
        urls, keys = len(_split(self.upstash_redis_rest_url)), len(_split(self.upstash_redis_rest_token))
        if urls != keys:
            raise ValueError(f"UPSTASH_REDIS_REST_URL has {urls} addresses but UPSTASH_REDIS_REST_TOKEN {keys} tokens")
        return self

    @property
    def upstash(self) -> list[tuple[str, SecretStr]]:
        """Address and token of each Upstash database, in the order of the shards; empty for the embedded store."""
        tokens = [SecretStr(token) for token in _split(self.upstash_redis_rest_token)]
        return list(zip(_split(self.upstash_redis_rest_url), tokens, strict=True))

    @property
    def api_keys(self) -> list[bytes]:
        """The keys of ``overload_api_keys``. Secrets: store only their digests."""
        return [key.encode() for key in _split(self.overload_api_keys)]

    @property
    def allowed_hosts(self) -> list[str]:
        """The names of ``overload_allowed_hosts`` in lower case."""
        return [host.lower() for host in _split(self.overload_allowed_hosts)]

    @property
    def uses_upstash(self) -> bool:
        """Whether the queue is at an Upstash endpoint, not in the embedded store."""
        return self.upstash_redis_rest_url is not None

    @property
    def max_poll_interval_s(self) -> float:
        """Longest pause between two polls of an empty queue, seconds; never below the poll interval."""
        longest = self.worker_max_poll_interval or (10.0 if self.uses_upstash else 5.0)
        return max(longest, self.worker_poll_interval)


def _split(listed: SecretStr | str | None) -> list[str]:
    text = listed.get_secret_value() if isinstance(listed, SecretStr) else listed
    return [] if text is None else [one.strip() for one in text.split(",")]


def _is_header_text(text: str) -> bool:
    """Whether a text is printable ASCII without blanks, so that an HTTP header can contain it."""
    return text.isascii() and text.isprintable() and " " not in text


def load_settings(**overrides: object) -> Settings:
    """Read the environment once; ``overrides`` (field names) take precedence.

    Raises :class:`ConfigurationError` in one line that names the variable, never its value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "is not a setting"
        if first["type"] == "string_pattern_mismatch":
            message = f"must be: {Settings.model_fields[str(first['loc'][0])].description}"
        raise ConfigurationError(f"{name}: {message}" if name else message) from None

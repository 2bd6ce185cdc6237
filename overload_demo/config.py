"""All settings: read once from the environment, validated, secrets masked.

The name of a variable is the field's name in capitals (``worker_poll_interval`` is ``WORKER_POLL_INTERVAL``).
Seconds are seconds, bytes are bytes. This is the one place that documents them all; the README shows the main ones.
"""

import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from overload_demo.errors import ConfigurationError

YEAR_S = 31_536_000
MIN_KEY_LENGTH = 16
_HOST_NAME = re.compile(r"\*|[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseSettings):
    """Validated settings; construct through :func:`load_settings`, which turns a mistake into one line."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    # Where the queue lives
    upstash_redis_rest_url: str | None = Field(None, description="Upstash REST endpoint; unset = the embedded store")
    upstash_redis_rest_token: SecretStr | None = Field(None, description="its token; set both or neither")
    overload_data_dir: Path = Field(
        default_factory=lambda: _default_data_dir(), description="where the embedded store keeps its files"
    )
    overload_redis_server: Path | None = Field(None, description="server binary to start instead of the bundled one")
    overload_redis_url: SecretStr | None = Field(None, description="a running server to put the gateway before")
    overload_maxmemory: str = Field(
        "0",
        pattern=r"^\d{1,15}$|^\d{1,9}[kmg]b?$",
        description="memory limit of the embedded server, e.g. 256mb; 0 = none",
    )
    overload_durability: Literal["always", "everysec"] = Field(
        "always", description="when the embedded server makes a write durable: before it answers, or each second"
    )
    overload_log_format: Literal["text", "json"] = Field("text", description="log lines: for people, or JSON objects")
    overload_key_prefix: str = Field("", max_length=64, description="put before every key of the queue")

    # The worker
    worker_processing_delay: float = Field(2.0, ge=0, le=86_400, description="simulated work, seconds a job")
    worker_poll_interval: float = Field(1.0, gt=0, le=3600, description="seconds between polls of an empty queue")
    worker_max_poll_interval: float | None = Field(
        None, gt=0, le=3600, description="the idle back-off ends here, seconds (default 5.0; 10.0 on Upstash)"
    )
    queue_result_ttl: int = Field(
        3600, ge=1, le=10 * YEAR_S, description="seconds a finished job is kept; waiting jobs never expire"
    )
    worker_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._:-]{1,100}$", description="stable name (default: host and first free slot)"
    )
    worker_handler: str | None = Field(
        None, description="module:function that does a job, or module:Class.method (default: the demo's own)"
    )
    worker_lease_s: float = Field(30.0, ge=1, le=3600, description="visibility timeout, seconds; extended every third")
    worker_job_timeout_s: float = Field(
        300.0, gt=0, le=YEAR_S, description="a job running longer counts as interrupted, seconds"
    )
    worker_grace_s: float = Field(
        25.0, ge=0, le=86_400, description="at a stop the running job may take so long; then it counts as interrupted"
    )
    worker_max_attempts: int = Field(3, ge=1, le=100, description="interrupted attempts before a job is dead")
    worker_max_batch: int = Field(128, ge=1, le=128, description="jobs in one lease, at most")
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="port of the worker's own /metrics; 0 takes a free one; unset = none"
    )
    worker_metrics_host: str = Field("127.0.0.1", min_length=1, description="address that port is opened on")
    worker_effect_log: Path | None = Field(None, description="append each start and effect of a job to this file")

    # The API
    overload_max_body_bytes: int = Field(65_536, ge=256, le=1_000_000, description="largest accepted body, bytes")
    overload_max_connections: int = Field(
        2_000, ge=8, le=1_000_000, description="live connections let in; more wait in the kernel"
    )
    overload_connections_mb: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="memory that live connections of one API process may take at worst, MB; lowers their cap",
    )
    overload_request_patience_s: float = Field(
        20.0, gt=0, le=600, description="a request must be whole by then, seconds"
    )
    overload_grace_s: float = Field(
        10.0, ge=0, le=600, description="at a stop: to let in who waits outside, then to answer who is inside, seconds"
    )
    overload_max_queue_depth: int = Field(
        0, ge=0, le=1_000_000_000, description="refuse jobs above this queue depth; 0 = no bound"
    )
    overload_max_wait_s: float = Field(
        0, ge=0, le=YEAR_S, description="refuse jobs that would wait longer, seconds; 0 = no bound"
    )
    overload_api_keys: SecretStr | None = Field(
        None, description="keys that the API asks for, with commas between them, 16 characters at least; unset = none"
    )
    overload_allowed_hosts: str | None = Field(
        None,
        description="host names that requests may be sent to, with commas between them, beside loopback names; * = any;"
        " unset: any, but loopback names only where the API or the live page listens on loopback",
    )
    overload_docs: bool = Field(True, description="whether the API serves an interactive page of itself at /docs")
    overload_api_key: SecretStr | None = Field(None, description="the key that the load generator sends; unset = none")
    overload_store_deadline_s: float = Field(5.0, gt=0, le=60, description="a request waits this long for the store")

    @field_validator("overload_data_dir", "overload_redis_server", "worker_effect_log", mode="after")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        try:
            return path and path.expanduser()
        except RuntimeError:  # no such home: DataDir refuses the path when it is used
            return path

    @field_validator("upstash_redis_rest_url", mode="after")
    @classmethod
    def _https_unless_loopback(cls, url: str | None) -> str | None:
        if url is None:
            return None
        url = url.strip()
        parts = urlsplit(url)
        usable = _is_header_text(url) and parts.port != 0  # reading the port raises ValueError if it is none
        if parts.scheme not in {"http", "https"} or not parts.hostname or not usable:
            raise ValueError("must look like https://NAME.upstash.io")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no user, password, query or fragment; the token has a variable of its own")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
            raise ValueError("must use https (plain http is for loopback only)")
        return url.rstrip("/")

    @field_validator("overload_api_keys", mode="after")
    @classmethod
    def _usable_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        each = _split(keys)
        if any(len(key) < MIN_KEY_LENGTH or not _is_header_text(key) for key in each):
            raise ValueError(
                f"each key must be one word of at least {MIN_KEY_LENGTH} ASCII characters, with commas between them"
            )
        if len(set(each)) < len(each):
            raise ValueError("the same key stands there twice")
        return keys

    @field_validator("overload_allowed_hosts", mode="after")
    @classmethod
    def _host_names(cls, hosts: str | None) -> str | None:
        for host in _split(hosts):
            if not _HOST_NAME.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name or address without a port, nor *")
        return hosts

    @field_validator("upstash_redis_rest_token", "overload_api_key", mode="after")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        if token is None:
            return None
        text = token.get_secret_value().strip()
        if not text or not _is_header_text(text):
            raise ValueError("must be one word of ASCII characters")
        return SecretStr(text)

    @model_validator(mode="after")
    def _upstash_both_or_neither(self) -> Self:
        if (self.upstash_redis_rest_url is None) != (self.upstash_redis_rest_token is None):
            set_one = "URL" if self.upstash_redis_rest_url else "TOKEN"
            missing = "TOKEN" if self.upstash_redis_rest_url else "URL"
            raise ValueError(
                f"UPSTASH_REDIS_REST_{set_one} is set but UPSTASH_REDIS_REST_{missing} is not: set both or neither"
            )
        return self

    @property
    def api_keys(self) -> list[bytes]:
        """The keys of ``overload_api_keys``, one by one. Secrets: digest them, and keep the digests."""
        return [key.encode() for key in _split(self.overload_api_keys)]

    @property
    def allowed_hosts(self) -> list[str]:
        """The names of ``overload_allowed_hosts``, one by one, in small letters."""
        return [host.lower() for host in _split(self.overload_allowed_hosts)]

    @property
    def uses_upstash(self) -> bool:
        """Whether the queue lives at an Upstash endpoint rather than in the embedded store."""
        return self.upstash_redis_rest_url is not None

    @property
    def max_poll_interval_s(self) -> float:
        """Longest pause between two polls of an empty queue, seconds; never below the poll interval."""
        longest = self.worker_max_poll_interval or (10.0 if self.uses_upstash else 5.0)
        return max(longest, self.worker_poll_interval)


def _default_data_dir() -> Path:
    try:
        return user_data_path("overload_demo")
    except RuntimeError:  # no home directory is known; DataDir refuses the path in one line
        return Path("~/overload_demo")


def _split(listed: SecretStr | str | None) -> list[str]:
    text = listed.get_secret_value() if isinstance(listed, SecretStr) else listed
    return [] if text is None else [one.strip() for one in text.split(",")]


def _is_header_text(text: str) -> bool:
    """Whether a text is printable ASCII without blanks, so that an HTTP request can carry it."""
    return text.isascii() and text.isprintable() and " " not in text


def load_settings(**overrides: object) -> Settings:
    """Read the environment once; ``overrides`` (field names) win over it.

    Raises :class:`ConfigurationError` with one line that names the variable, never its value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{name}: {message}" if name else message) from None

"""A server of your own behind the gateway (``OVERLOAD_REDIS_URL``), and what it is asked before it is trusted."""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.rest.address import LOADING, info_facts, refuse_unsafe, why_no_writes
from overload_demo.store.gateway.resp import RedisConnection, ReplyError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
REACH_TIMEOUT_S = 0.5  # a host that takes longer to accept a connection counts as gone
CHECK_INTERVAL_S = 0.5
SCHEMES = (
    "OVERLOAD_REDIS_URL: must look like redis://[user:password@]host[:port][/db], rediss:// for TLS, or "
    "unix:///path[?db=0]"
)


@dataclass(frozen=True)
class Target:
    """Where a running server listens, and how to sign in; secrets are masked in its repr."""

    host: str
    port: int
    is_encrypted: bool
    path: str  # of a unix socket; then host and port mean nothing
    user: str
    password: SecretStr
    database: int

    @property
    def name(self) -> str:
        """What messages call it; holds no secret."""
        return self.path or f"{self.host}:{self.port}"


def parse_target(url: str) -> Target:
    """The parts of a URL of one of the three kinds; raises :class:`ConfigurationError` without quoting it."""
    try:
        parts = urlsplit(url)
        is_unix = parts.scheme == "unix"
        if parts.scheme not in {"redis", "rediss", "unix"} or (is_unix and not parts.path):
            raise ConfigurationError(SCHEMES)
        query = parse_qs(parts.query)
        database = query.get("db", ["" if is_unix else parts.path.strip("/")])[0]
        return Target(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            is_encrypted=parts.scheme == "rediss",
            path=unquote(parts.path) if is_unix else "",
            user=unquote(parts.username or ""),
            password=SecretStr(unquote(parts.password or query.get("password", [""])[0])),
            database=int(database or 0),
        )
    except ValueError:  # a port or database that is no number
        raise ConfigurationError(SCHEMES) from None


class ExternalServer:
    """The :class:`~overload_demo.store.gateway.upstream.Server` at a :class:`Target`; never started or changed."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def connect(self) -> RedisConnection:
        """A connection, signed in and on the right database, to a server that takes writes.

        The host is looked up anew each time, also while the server loads its data. Raises
        :class:`StoreUnavailableError`.
        """
        while True:
            connection = await self.connect_again()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    reason = why_no_writes(info_facts(await connection.ask("INFO")))
                if not reason:
                    return connection
            except TimeoutError:
                reason = "it did not answer in time"
            except ReplyError as error:
                reason = f"it does not tell what it is: {error}"
            connection.close()
            if reason != LOADING:
                raise StoreUnavailableError(f"the server at {self._target.name} cannot be used: {reason}")
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def connect_again(self) -> RedisConnection:
        """The same while the server is known to have its data."""
        target = self._target
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._connect(target.database)
        except TimeoutError:
            raise StoreUnavailableError(f"the server at {target.name} did not answer in time") from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason
            raise StoreUnavailableError(f"no TLS with the server at {target.name}: {reason}") from None
        except OSError as error:
            raise StoreUnavailableError(f"no server at {target.name}: {error.strerror or error}") from None
        except ReplyError as error:
            raise StoreUnavailableError(f"the server at {target.name} refused us: {error}") from None

    async def connect_aside(self) -> RedisConnection:
        """A connection, signed in; raises OSError or ReplyError."""
        return await self._connect()

    async def is_reachable(self) -> bool:
        """Whether the host accepts a connection, which its kernel does for a busy server too."""
        try:
            async with asyncio.timeout(REACH_TIMEOUT_S):
                (await self._open(is_encrypted=False)).close()
        except (OSError, TimeoutError):
            return False
        return True

    async def check(self, connection: RedisConnection) -> None:
        """Wait for the next look, then raise :class:`StoreUnavailableError` if the server refuses writes."""
        await asyncio.sleep(CHECK_INTERVAL_S)
        with contextlib.suppress(ReplyError):  # BUSY passes
            if reason := why_no_writes(info_facts(await connection.ask("INFO"))):
                raise StoreUnavailableError(f"the server at {self._target.name} cannot be used: {reason}")

    async def end_stuck_script(self, connection: RedisConnection) -> None:
        """Tell of it: only who runs the server may end it."""
        log.error(
            "a script at %s has written and runs past its time limit: it cannot be killed. "
            "SHUTDOWN NOSAVE there ends the server without what it wrote",
            self._target.name,
        )

    async def aclose(self) -> None:
        """Nothing to end: the server is not ours."""

    async def _connect(self, database: int = 0) -> RedisConnection:
        connection, target = await self._open(), self._target
        try:
            if secret := target.password.get_secret_value():
                await connection.ask("AUTH", *([target.user] if target.user else []), secret)
            if database:
                await connection.ask("SELECT", str(database))
        except BaseException:
            connection.close()
            raise
        return connection

    async def _open(self, *, is_encrypted: bool = True) -> RedisConnection:
        loop, target = asyncio.get_running_loop(), self._target
        if target.path:
            return (await loop.create_unix_connection(RedisConnection, target.path))[1]
        # Certificates are checked against those the system trusts, or SSL_CERT_FILE names.
        context = ssl.create_default_context() if is_encrypted and target.is_encrypted else None
        return (await loop.create_connection(RedisConnection, target.host, target.port, ssl=context))[1]


async def inspect(connection: RedisConnection) -> str:
    """When an acknowledged write is on disk there: ``always``, ``everysec``, ``none`` or ``unknown``.

    Raises :class:`ConfigurationError` for a server that could lose jobs by its nature: one that evicts, or a cluster.
    Warns once when durability is less than ``always``.
    """
    try:
        told = info_facts(await connection.ask("INFO"))
    except ReplyError as error:
        raise ConfigurationError(f"OVERLOAD_REDIS_URL: the server does not tell what it is: {error}") from None
    refuse_unsafe(told)
    durability = "none"
    if told.get("aof_enabled") != "0":
        durability = await _fsync_policy(connection)
    if durability != "always":
        log.warning("durability of the server is %r: an acknowledged job can be lost in a crash", durability)
    return durability


async def _fsync_policy(connection: RedisConnection) -> str:
    with contextlib.suppress(ReplyError):  # hosted servers often have no CONFIG
        answer = await connection.ask("CONFIG", "GET", "appendfsync")
        if len(answer) == 2:
            return {"always": "always", "everysec": "everysec", "no": "none"}.get(answer[1], "unknown")
    return "unknown"

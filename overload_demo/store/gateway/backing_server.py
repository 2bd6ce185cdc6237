"""The server behind the gateway: what every kind can do, and a server of the user's own (``OVERLOAD_REDIS_URL``)."""

import asyncio
import contextlib
import copy
import logging
import re
import ssl
from abc import ABC, abstractmethod
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.rest import LOADING, info_facts, refuse_old, refuse_unsafe, why_no_writes
from overload_demo.store.gateway.resp import RedisConnection, ReplyError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
REACH_TIMEOUT_S = 0.5  # a host that takes longer to accept a connection counts as gone
SCHEMES = (
    "OVERLOAD_REDIS_URL: must look like redis://[user:password@]host[:port][/db], rediss:// for TLS, "
    "unix:///path[?db=0], redis+cluster://host:port,host:port[?shards=12], or redis+sentinel://host:port,host:port/name"
)


class BackingServer(ABC):
    """A server that the gateway connects to; methods that connect raise :class:`StoreUnavailableError`."""

    name = "of this data directory"
    answer_timeout_s, loading_poll_s, retry_longest_s = CONNECT_TIMEOUT_S, 0.5, 2.0
    # How errors begin that mean: nothing was done, another server may do it. Empty if the server is not followed.
    refusals: tuple[bytes, ...] = ()
    is_in_cluster = False
    durability: str = "unknown"  # when an acknowledged write is on disk, from the first connection on

    def __init__(self) -> None:
        self.notices: list[str] = []  # what was dropped from the data at the start, and settings that weaken promises

    async def connect(self) -> RedisConnection:
        """Open a connection to a server that takes writes, waiting while one that is not followed loads its data.

        Raises :class:`ConfigurationError` if jobs are not safe there: after a failover it is another server.
        """
        while True:  # by a new connection each time, so that a host name is looked up anew
            connection = await self.connect_again()
            try:
                async with asyncio.timeout(self.answer_timeout_s):  # wait_for of Python 3.11 can swallow a cancellation
                    facts = info_facts(await connection.ask("INFO"))
                    if not (reason := self.why_unusable(facts)):
                        await self.assess(connection, facts)
                        return connection
            except TimeoutError:
                reason = f"it did not answer within {self.answer_timeout_s:g} s"
            except ReplyError as error:
                reason = f"it refuses INFO: {error}"
            except BaseException:
                connection.close()
                raise
            connection.close()
            if reason != LOADING or self.refusals:
                raise StoreUnavailableError(f"the server {self.name} cannot be used: {reason}")
            await asyncio.sleep(self.loading_poll_s)

    def why_unusable(self, facts: dict[str, str]) -> str:
        """Return why :meth:`connect` cannot use a server of which INFO says this; empty if it can."""
        return why_no_writes(facts)

    async def assess(self, connection: RedisConnection, facts: dict[str, str]) -> None:  # noqa: B027
        """Note the durability; raises :class:`ConfigurationError` if jobs are not safe on a server of the user's."""

    @abstractmethod
    async def connect_again(self) -> RedisConnection:
        """Open another connection to a server that is known to have its data."""

    async def connect_aside(self) -> RedisConnection:
        """Open a connection for PING and KILL, whatever the server's state; may raise OSError or ReplyError too."""
        return await self.connect_again()

    async def is_reachable(self) -> bool:
        """Whether a new connection is accepted, by the kernel at least."""
        return True

    async def why_leave(self, connection: RedisConnection) -> str:
        """Return why the server of a connection takes no writes any more; empty if it does."""
        return ""

    def expire(self) -> None:  # noqa: B027 - for one that is followed
        """Forget which server it is: it has refused a request."""

    @abstractmethod
    async def end_stuck_script(self, connection: RedisConnection) -> None:
        """End a script that has written and exceeds its time limit, if that is possible."""

    async def report_replicas(self, connection: RedisConnection, wanted: int) -> None:  # noqa: B027
        """Log and note, once, what weakens a 202 that ``wanted`` replicas confirm; nothing is refused."""

    async def aclose(self) -> None:  # noqa: B027 - only a server that was started here is ended
        """End the server if the gateway started it."""


class ExternalServer(BackingServer):
    """A running server, never started, ended or configured.

    Raises :class:`ConfigurationError`, without quoting the URL, for one that is not of the three kinds.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        try:
            parts = urlsplit(url)
            query, is_unix = parse_qs(parts.query), parts.scheme == "unix"
            if parts.scheme not in {"redis", "rediss", "unix"} or (is_unix and not parts.path):
                raise ValueError
            self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 6379
            self.host.encode("idna")
            self.database = int(query.get("db", ["" if is_unix else parts.path.strip("/")])[0] or 0)
        except ValueError:  # also a port or database that is no number, or a host that is no name
            raise ConfigurationError(SCHEMES) from None
        self.user = unquote(parts.username or "")
        self._password = SecretStr(unquote(parts.password or query.get("password", [""])[0]))
        self._path = unquote(parts.path) if is_unix else ""  # of a Unix socket; host and port are not used then
        self._is_encrypted = parts.scheme == "rediss"
        self.name = f"at {self._path or f'{self.host}:{self.port}'}"

    async def connect_again(self) -> RedisConnection:
        """Open a connection, signed in and on the right database."""
        try:
            async with asyncio.timeout(self.answer_timeout_s):
                return await self._sign_in(self.database)
        except (OSError, ReplyError) as error:
            reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error) or "no answer"
            raise StoreUnavailableError(f"cannot connect to the server {self.name}: {reason}") from None

    async def connect_aside(self) -> RedisConnection:
        """Open a connection, signed in; SELECT would fail while a script runs."""
        return await self._sign_in()

    async def is_reachable(self) -> bool:
        """Whether the host accepts a connection; its kernel does so for a busy server too."""
        try:
            async with asyncio.timeout(REACH_TIMEOUT_S):
                (await self._open(is_encrypted=False)).close()
        except (OSError, TimeoutError):
            return False
        return True

    async def why_leave(self, connection: RedisConnection) -> str:
        """Return why the server, if it has become a replica, takes no writes."""
        return why_no_writes(info_facts(await connection.ask("INFO", "replication")))

    async def end_stuck_script(self, connection: RedisConnection) -> None:
        """Log it: ending the server is up to its operator."""
        log.error(
            "a script on the server %s has written and exceeds its time limit: it cannot be killed. "
            "SHUTDOWN NOSAVE there ends the server without the script's writes",
            self.name,
        )

    async def assess(self, connection: RedisConnection, facts: dict[str, str]) -> None:
        """Note ``always``, ``everysec``, ``none`` or ``unknown``; warns about anything but ``always``."""
        refuse_unsafe(facts, in_cluster=self.is_in_cluster, server=f"the server {self.name}")
        refuse_old(facts, f"the server {self.name}")
        self.durability = await _durability_of(connection, facts)
        if self.durability != "always":
            lost = "an acknowledged job can be lost in a crash"
            log.warning("durability of the server %s is %r: %s", self.name, self.durability, lost)

    async def report_replicas(self, connection: RedisConnection, wanted: int) -> None:
        """Report problems: a replica may be starting, and without enough of them no 202 is sent."""
        with contextlib.suppress(ReplyError, StoreUnavailableError):
            for problem in await self._replica_problems(connection, wanted) if wanted else []:
                if problem not in self.notices:  # shards of one server share them
                    log.warning("%s", problem)
                    self.notices.append(problem)

    async def _replica_problems(self, connection: RedisConnection, wanted: int) -> list[str]:
        found, place = [], self.name.rpartition("at ")[2]
        info = info_facts(await connection.ask("INFO", "replication"))
        # slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0
        replicas = [text for name, text in info.items() if re.fullmatch(r"slave\d+", name) and "state=online" in text]
        if len(replicas) < wanted:
            have = f"{place} has {len(replicas)} replicas"
            found.append(f"OVERLOAD_MIN_REPLICAS is {wanted}, but {have}: no job is accepted")
        least = await configured(connection, "min-replicas-to-write")
        if not least.isdigit() or int(least) < wanted:
            advice = f"with less than {wanted} a primary without replicas keeps jobs that a failover drops"
            found.append(f"min-replicas-to-write of the server {place} is {least or 'unknown'}: {advice}")
        for text in replicas:
            replica = dict(part.partition("=")[::2] for part in text.split(","))
            durability = await self._durability_of_replica(replica["ip"], int(replica["port"]))
            if durability != "always":
                place = f"{replica['ip']}:{replica['port']}"
                found.append(f"durability of the replica {place} is {durability!r}, and it may become the primary")
        return found

    async def _durability_of_replica(self, host: str, port: int) -> str:
        """Ask a replica at the address that the primary knows; it may be out of reach from here."""
        replica = copy.copy(self)
        replica.host, replica.port, replica._path = host, port, ""
        try:
            async with asyncio.timeout(4 * REACH_TIMEOUT_S):  # the connection and three exchanges
                with contextlib.closing(await replica._sign_in()) as connection:
                    info = info_facts(await connection.ask("INFO"))
                    refuse_unsafe(info, in_cluster=True, server="it")
                    return await _durability_of(connection, info)
        except (ConfigurationError, OSError, ReplyError, StoreUnavailableError, UnicodeError) as error:
            return str(error) if isinstance(error, ConfigurationError) else "unknown"

    async def _sign_in(self, database: int = 0) -> RedisConnection:
        connection = await self._open(is_encrypted=self._is_encrypted)
        try:
            if self._password:
                await connection.ask("AUTH", *filter(None, [self.user]), self._password.get_secret_value())
            if database:
                await connection.ask("SELECT", str(database))
        except BaseException:
            connection.close()
            raise
        return connection

    async def _open(self, *, is_encrypted: bool) -> RedisConnection:
        loop = asyncio.get_running_loop()
        if self._path:
            return (await loop.create_unix_connection(RedisConnection, self._path))[1]
        # Certificates are checked against those the system trusts, or SSL_CERT_FILE names.
        tls = ssl.create_default_context() if is_encrypted else None
        return (await loop.create_connection(RedisConnection, self.host, self.port, ssl=tls))[1]


async def configured(connection: RedisConnection, name: str) -> str:
    """Return a setting of a server; empty if it is not known: hosted servers often have no CONFIG."""
    with contextlib.suppress(ReplyError):
        return str((await connection.ask("CONFIG", "GET", name) or [""])[-1])
    return ""


async def _durability_of(connection: RedisConnection, info: dict[str, str]) -> str:
    if info.get("aof_enabled") == "0":
        return "none"
    fsync = await configured(connection, "appendfsync")
    return {"always": "always", "everysec": "everysec", "no": "none"}.get(fsync, "unknown")

"""Open the store of a process, found, started and checked: Upstash, or the embedded store of a data directory."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.process import PYTHON_M
from overload_demo.rest import Address
from overload_demo.rest.client import Upstash
from overload_demo.rest.loopback import connect
from overload_demo.store import append_only
from overload_demo.store.data_dir import DataDir, State, without_secrets
from overload_demo.store.startup_check import check_store

log = logging.getLogger(__name__)

Store = tuple[Address, Callable[[], Address] | None]

ANSWER_TIMEOUT_S = 15.0  # for a gateway that another process started
LOADING_TIMEOUT_S = 120.0  # for one started here: it ends by itself unless it is still loading a lot of data
PING_TIMEOUT_S = 2.0
POLL_S = 0.02
PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer %b\r\n\r\n"


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Find or start the store and hold it; yields its address and, for the embedded one, a function that refreshes it.

    A store of several shards is the address of shard 0, which holds those of the others.

    It is Upstash if its two variables are set, else the embedded store. Blocking. Raises :class:`ConfigurationError` if
    the embedded store cannot be started, or jobs are not safe there.
    """
    if settings.upstash:
        first, *others = [Address(url, token) for url, token in settings.upstash]
        address = replace(first, others=tuple(others))
        check_store(address, settings)
        yield address, None
        return
    with EmbeddedStore(settings.overload_data_dir, settings) as store:
        address = store.acquire()
        check_store(address, settings)
        yield address, store.refresh


def clients_of(store: Store, **options: Any) -> list[Upstash]:
    """Return a client for each shard, in order; ``options`` are those of :class:`Upstash`."""
    address, refresh = store

    def refreshed(shard: int) -> Callable[[], Address] | None:
        return refresh and (lambda: refresh().shards[shard])

    return [Upstash(one, refresh=refreshed(shard), **options) for shard, one in enumerate(address.shards)]


@asynccontextmanager
async def opened(store: Store, **options: Any) -> AsyncIterator[list[Upstash]]:
    """Yield the clients of :func:`clients_of`, and close them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(aclosing(client)) for client in clients_of(store, **options)]


class EmbeddedStore:
    """Makes this process a user of the store of ``data_dir``, from :meth:`acquire` to :meth:`release`.

    The first user of a directory starts its store (gateway and server), which ends when the last one has released it or
    died; the data stays. Safe to use from several threads; a child made by ``fork`` does not hold the store.
    """

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        self._data_dir, self._settings = DataDir(data_dir), settings
        self._users_lock = self._data_dir.lock("users")
        self._mutex = threading.RLock()
        self._last_error = ""
        self._found: tuple[str, int] | None = None  # server and shards of the store, the same while it is held

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> Address:
        """Hold the store, starting it if it does not run; returns its address. Blocks, normally below a second.

        Raises :class:`ConfigurationError` when it cannot be started as configured, and :class:`StoreUnavailableError`
        when it does not answer, or its directory was removed or replaced since: a store that starts on another one
        would accept jobs as if none had been lost. After an error nothing more is held than before.
        """
        with self._mutex:
            was_held = self._users_lock.is_held
            if was_held:
                self._data_dir.refuse_if_lost()
                append_only.refuse_if_missing(self._data_dir.path)
            self._data_dir.prepare()
            # Held before the state is read: otherwise the store could end between the two.
            self._users_lock.share()
            start_lock, timeout_s = self._data_dir.lock("start"), LOADING_TIMEOUT_S + ANSWER_TIMEOUT_S
            try:
                start_lock.require("timed out waiting for another process to start the store on", timeout_s=timeout_s)
                address = self._find_or_start()
                self._data_dir.remember_inodes()
                return address
            except BaseException:
                if not was_held:
                    self._users_lock.release()
                raise
            finally:
                start_lock.release()

    def refresh(self) -> Address:
        """Return the present address, once the last one does not answer; starts the store again if its gateway is dead.

        Raises :class:`StoreUnavailableError`, also after :meth:`release`: a late request starts no store.
        """
        try:
            with self._mutex:
                if not self._users_lock.is_held:
                    raise StoreUnavailableError(f"the store on {self._data_dir.path} was released")
                return self.acquire()
        except (ConfigurationError, StoreUnavailableError) as error:
            if str(error) != self._last_error:  # log each distinct error once
                log.error("%s", error)
            self._last_error = str(error)
            # The configuration was good enough to start it before: for its users it is unavailable.
            raise StoreUnavailableError(str(error)) from None

    def release(self) -> None:
        """Stop being a user; the last one's release ends the store soon after. Harmless when nothing is held."""
        with self._mutex:
            self._users_lock.release()
            # The next hold may find another directory and store there.
            self._data_dir, self._found = DataDir(self._data_dir.path), None

    def _find_or_start(self) -> Address:
        data_dir, gateway_lock = self._data_dir, self._data_dir.lock("gateway")
        starting: subprocess.Popen[bytes] | None = None
        log_start, give_up_at = data_dir.log_size(), time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < give_up_at:
            # Only the lock proves that a gateway runs. A silent gateway that holds it is never started twice.
            if starting is None and gateway_lock.is_free():
                if self._found and self._found[0] != without_secrets(self._settings.overload_redis_url):
                    raise StoreUnavailableError(f"the standalone store on {data_dir.path} has ended: start it again")
                starting = _start(data_dir, self._settings)
                give_up_at = time.monotonic() + LOADING_TIMEOUT_S
            elif (state := data_dir.read_state()) is not None and any(map(_answers, data_dir.address(state).shards)):
                self._compare(state)
                for notice in state.notice.splitlines() if starting is not None else []:
                    log.warning("%s", notice)
                return data_dir.address(state)
            elif starting is not None and starting.poll() is not None:
                if gateway_lock.is_free():
                    raise _failure(data_dir, log_start, starting.returncode)
                starting = None  # another process's store was faster
            time.sleep(POLL_S)
        raise StoreUnavailableError(f"the store on {data_dir.path} runs, but does not answer")

    def _compare(self, state: State) -> None:
        """Warn about a running store that was started with other settings; refuse one with another server."""
        settings, nodes, place = self._settings, 2 * state.shards or 1, self._data_dir.path
        wanted, found, used = without_secrets(settings.overload_redis_url), (state.behind, state.shards), state.behind
        if wanted not in {"", used}:
            raise ConfigurationError(
                f"OVERLOAD_REDIS_URL is {wanted}, but the store that runs on {place} uses {used or 'its own server'}: "
                "end the users of that store, or set another OVERLOAD_DATA_DIR"
            )
        if self._found not in {None, found}:
            raise StoreUnavailableError(f"the store on {place} was started again in front of another server")
        self._found = found
        if not wanted:
            if state.durability != settings.overload_durability:
                text = "OVERLOAD_DURABILITY is %s, but the running store has %s"
                log.warning(text, settings.overload_durability, state.durability)
            if nodes != settings.overload_nodes and not used:
                log.warning("OVERLOAD_NODES is %d, but the running store has %d", settings.overload_nodes, nodes)


def _start(data_dir: DataDir, settings: Settings) -> "subprocess.Popen[bytes]":
    """Start a store process that does not depend on this one."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("UPSTASH_")}
    url, server = settings.overload_redis_url, settings.overload_redis_server
    environment |= {
        "OVERLOAD_REDIS_URL": url.get_secret_value() if url else "",
        "OVERLOAD_REDIS_SERVER": str(server.absolute()) if server else "",
        "OVERLOAD_MAXMEMORY": settings.overload_maxmemory,
        "OVERLOAD_DURABILITY": settings.overload_durability,
        "OVERLOAD_NODES": str(settings.overload_nodes),
        "OVERLOAD_MIN_REPLICAS": str(settings.overload_min_replicas),
    }
    command = [*PYTHON_M, "overload_demo.store", "--data-dir", str(data_dir.path), "--until-unused"]
    process = data_dir.spawn(command, env=environment)
    # Reaps the store if it ends before this process.
    threading.Thread(target=process.wait, name="store-reaper", daemon=True).start()
    return process


def _failure(data_dir: DataDir, log_start: int, exit_code: int) -> Exception:
    """The error for a store that ended while starting, with the last line of its log."""
    line = data_dir.log_lines(log_start)[-1].strip()
    if line.startswith("error: "):
        return ConfigurationError(line.removeprefix("error: "))
    if reason := data_dir.write_problem():  # then its log cannot hold the reason
        return ConfigurationError(f"cannot write to the data directory {data_dir.path}: {reason}")
    text = f"the store ended while starting (exit code {exit_code}): {line or 'its log holds nothing'}"
    return StoreUnavailableError(f"{text}; see {data_dir.log}")


def _answers(address: Address) -> bool:
    """Whether gateway and server answer at the address. The token is sent only to a process of this user."""
    try:
        with connect(address.socket, PING_TIMEOUT_S) as link:
            link.sendall(PING % address.token.get_secret_value().encode())
            return link.makefile("rb").read().endswith(b'{"result":"PONG"}')
    except OSError:
        return False

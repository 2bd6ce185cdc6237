"""A user's hold on the embedded store of a data directory: find it, or start it; it ends with its last user."""

import http.client
import json
import logging
import os
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.process import PYTHON_M
from overload_demo.rest.address import Address
from overload_demo.rest.loopback import connect
from overload_demo.store import append_only
from overload_demo.store.data_dir import DataDir, State

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 15.0  # for a gateway that somebody else started
LOADING_TIMEOUT_S = 120.0  # for one we started: it ends by itself unless it is still loading a lot of data
LEAVING_TIMEOUT_S = 30.0
PING_TIMEOUT_S = 2.0
POLL_S = 0.02


class EmbeddedStore:
    """Makes this process a user of the store of ``data_dir``, from :meth:`acquire` to :meth:`release`.

    The store (a gateway process and its server) is shared by all users of the directory; whoever comes first starts it,
    and it ends when the last one has released it or died. The data outlives it. Safe to use from several threads; a
    child made by ``fork`` does not hold the store.
    """

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        self._data_dir = DataDir(data_dir)
        self._settings = settings
        self._users_lock = self._data_dir.users_lock()
        self._mutex = threading.RLock()
        self._last_error = ""

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> Address:
        """Hold the store, starting it if nobody has; returns where it answers. Blocks, normally below a second.

        Raises :class:`ConfigurationError` when it cannot be started as configured, and :class:`StoreUnavailableError`
        when it does not answer; then nothing is held. The latter also when the data directory was removed or replaced
        since: a store that starts on another one would accept jobs as if none had been lost.
        """
        with self._mutex:
            held_before = self._users_lock.is_held
            if held_before:
                self._data_dir.refuse_if_lost()
                append_only.refuse_if_missing(self._data_dir.path)
            self._data_dir.prepare()
            # Held before the state is read: otherwise the store we read about could leave before we use it.
            if not self._users_lock.take(shared=True, timeout_s=LEAVING_TIMEOUT_S):
                raise StoreUnavailableError(f"the store on {self._data_dir.path} is leaving, but does not end")
            try:
                address = self._find_or_start()
                self._data_dir.remember()
                return address
            except BaseException:
                if not held_before:
                    self._users_lock.release()
                raise

    def refresh(self) -> Address:
        """Where the store answers now, after starting it again if its gateway is dead; the hold is kept.

        Call it when nobody answers at the last address. Raises :class:`StoreUnavailableError`, also after
        :meth:`release`: a request that outlives its user starts no store.
        """
        try:
            with self._mutex:
                if not self._users_lock.is_held:
                    raise StoreUnavailableError(f"the store on {self._data_dir.path} was released")
                return self.acquire()
        except (ConfigurationError, StoreUnavailableError) as error:
            if str(error) != self._last_error:  # one line, however often it is asked for
                log.error("%s", error)
            self._last_error = str(error)
            # It could be started before: to a user of a running store it is just gone.
            raise StoreUnavailableError(str(error)) from None

    def release(self) -> None:
        """Stop being a user; the last one's release ends the store soon after. Harmless when nothing is held."""
        with self._mutex:
            self._users_lock.release()
            self._data_dir = DataDir(self._data_dir.path)  # the next hold may find another directory there

    def _find_or_start(self) -> Address:
        start_lock, gateway_lock = self._data_dir.start_lock(), self._data_dir.gateway_lock()
        if not start_lock.take(timeout_s=LOADING_TIMEOUT_S + ANSWER_TIMEOUT_S):
            raise StoreUnavailableError(f"another process is starting the store on {self._data_dir.path}, in vain")
        try:
            starter: _Starter | None = None
            give_up_at = time.monotonic() + ANSWER_TIMEOUT_S
            while True:
                # The lock alone says whether a gateway lives. One that is alive but silent is never started twice.
                if starter is None and gateway_lock.is_free():
                    starter = _Starter(self._data_dir, self._settings)
                    give_up_at = time.monotonic() + LOADING_TIMEOUT_S
                elif (state := self._data_dir.read_state()) is not None and _answers(self._data_dir.address(state)):
                    self._compare_durability(state)
                    if starter is not None and state.notice:
                        log.warning("%s", state.notice)
                    return self._data_dir.address(state)
                elif starter is not None and starter.has_failed():
                    if gateway_lock.is_free():
                        raise starter.failure()
                    starter = None  # somebody else's store was faster
                if time.monotonic() > give_up_at:
                    raise StoreUnavailableError(f"the store on {self._data_dir.path} runs, but does not answer")
                time.sleep(POLL_S)
        finally:
            start_lock.release()

    def _compare_durability(self, state: State) -> None:
        """Whoever came first has decided; say so to one who asked for something else."""
        wanted = self._settings.overload_durability
        if self._settings.overload_redis_url is None and state.durability != wanted:
            log.warning("OVERLOAD_DURABILITY is %s, but the running store has %s", wanted, state.durability)


def wait_until_ended(data_dir: Path) -> bool:
    """After its last user has released it: wait until the store has left its directory, for 30 s at most.

    Returns whether it has. Until then its log and its locks would come back after a removal.
    """
    lock = DataDir(data_dir).gateway_lock()
    ended = lock.take(timeout_s=LEAVING_TIMEOUT_S)
    lock.release()
    return ended


class _Starter:
    """One attempt to start a store process, detached from this one."""

    def __init__(self, data_dir: DataDir, settings: Settings) -> None:
        self._data_dir, self._log_start = data_dir, data_dir.log_size()
        log_file = data_dir.open_log()
        command = [*PYTHON_M, "overload_demo.store", "--data-dir", str(data_dir.path), "--until-unused"]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                env=_environment(settings),
                start_new_session=True,  # a Ctrl-C in a user's terminal must not reach it
            )
        finally:
            os.close(log_file)
        # It outlives us or not, as it likes; but while we live, its end leaves no zombie.
        threading.Thread(target=self._process.wait, name="store-reaper", daemon=True).start()

    def has_failed(self) -> bool:
        """Whether the process has ended already."""
        return self._process.poll() is not None

    def failure(self) -> Exception:
        """Why it ended, in its own words."""
        said = self._data_dir.last_log_line(self._log_start)
        if said.startswith("error: "):
            return ConfigurationError(said.removeprefix("error: "))
        if reason := self._data_dir.write_problem():  # then its log cannot say it
            return ConfigurationError(f"cannot write to the data directory {self._data_dir.path}: {reason}")
        what = f"the store ended while starting (exit code {self._process.returncode}): {said or 'it said nothing'}"
        return StoreUnavailableError(f"{what}; see {self._data_dir.log}")


def _environment(settings: Settings) -> dict[str, str]:
    """The store's environment: ours without Upstash, and with the settings as they were given to us."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("UPSTASH_")}
    url, server = settings.overload_redis_url, settings.overload_redis_server
    environment |= {
        "OVERLOAD_REDIS_URL": url.get_secret_value() if url else "",
        "OVERLOAD_REDIS_SERVER": str(server.absolute()) if server else "",
        "OVERLOAD_MAXMEMORY": settings.overload_maxmemory,
        "OVERLOAD_DURABILITY": settings.overload_durability,
    }
    return environment


def _answers(address: Address) -> bool:
    """Whether a gateway answers at the address and its server does too. The token goes to a process of this user."""
    link = http.client.HTTPConnection("localhost", timeout=PING_TIMEOUT_S)
    try:
        link.sock = connect(address.socket, PING_TIMEOUT_S)
        link.request("GET", "/ping", headers={"Authorization": f"Bearer {address.token.get_secret_value()}"})
        answer = link.getresponse()
        return answer.status == 200 and json.loads(answer.read()) == {"result": "PONG"}
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        link.close()

"""A running stack for one experiment: store, API, worker, on ports and data nobody else uses.

Idempotent and restart-safe, as notebooks need it: starting twice gives the same stack, stopping twice is harmless,
every stack has a fresh data directory and port 0, and nothing outlives the process that started it, however it dies:
children end with their stdin, the store ends with its last user.
"""

import asyncio
import atexit
import contextlib
import json
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import psutil
from pydantic import SecretStr

from overload_demo.api.front_door.listeners import listen
from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.http_server import url_of
from overload_demo.lab.job_log import EFFECTS
from overload_demo.lab.json_connection import JsonConnection, is_ready
from overload_demo.lab.leftovers import remove_abandoned, remove_data, remove_keys
from overload_demo.lab.parts import ApiThread, Part, WorkerThread, lives_in, start_all, stop_all
from overload_demo.lab.run_folder import new_run_folder, tail
from overload_demo.lab.uncancelled import finish, in_thread
from overload_demo.process import Child
from overload_demo.store.connect import Store, open_store
from overload_demo.store.data_dir import DataDir

Placement = Literal["kernel", "process"]

KILLABLE = ("api", "worker", "gateway", "redis")
READY_WITHIN_S = 30.0
SUPERVISE_EVERY_S = 0.2
RESULT_TTL_S = 86_400  # results outlive any drain that is going to be reconciled


class Stack:
    """Store, API and worker of one experiment; start with :meth:`start`, stop with :meth:`stop`.

    ``placement="kernel"`` runs API and worker in threads of this process, ``"process"`` as children; the store is
    always a process of its own. A part that dies is started again, which ``restarts`` counts by name, unless it is one
    of ``held``. Its API asks for a key of its own, so that other users of this machine cannot use it; ``headers`` hold
    the key. ``on_stop`` is called once, by :meth:`stop`.
    """

    current: ClassVar["Stack | None"] = None

    def __init__(self, wanted: dict[str, Any], folder: Path) -> None:
        self._wanted, self.folder = wanted, folder
        self.placement: Placement = wanted["placement"]
        self.restarts: Counter[str] = Counter()
        self.parts: dict[str, Part] = {}
        self.held: set[str] = set()
        self.on_stop: list[Callable[[], object]] = []
        self._key = SecretStr(secrets.token_urlsafe(24)) if wanted.get("own_key", True) else None
        self._generation = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._cleanup = contextlib.ExitStack()
        self.settings: Settings
        self.store: Store
        self.listeners: list[socket.socket]

    @classmethod
    async def start(
        cls,
        *,
        placement: Placement = "kernel",
        processing_delay_s: float = 0.001,
        upstash: bool = False,
        own_key: bool = True,
        runs: Path = Path("runs"),
        name: str = "stack",
        **settings: Any,
    ) -> "Stack":
        """Start a stack, or return the running one if it was started with the same arguments; another is stopped first.

        ``processing_delay_s`` is the work of one job, seconds. ``own_key`` False: its API asks for no key. ``runs`` is
        where its run folder is made. ``settings`` are further fields of :class:`Settings`. Returns when the API is
        ready. Raises :class:`OverloadDemoError` with the last log lines if it does not get ready.
        """
        wanted = {"placement": placement, "processing_delay_s": processing_delay_s, "upstash": upstash}
        wanted |= {"own_key": own_key, **settings}
        running = cls.current
        if running is not None and running._wanted == wanted and running.parts["api"].pid:
            return running
        stack = cls(wanted, new_run_folder(runs, name))
        await in_thread(remove_abandoned, runs)
        await stack._take_over_from(running)
        return stack

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop everything this stack has started; may be called again, and after any failure."""
        await finish(self._ending())
        while self.on_stop:
            self.on_stop.pop()()

    async def fresh(self, processing_delay_s: float | None = None) -> None:
        """Start again on empty data, so that no old backlog falsifies a figure. The URL changes.

        ``processing_delay_s`` is the work of one job from then on, seconds; None keeps it.
        """
        if processing_delay_s is not None:
            self._wanted = self._wanted | {"processing_delay_s": processing_delay_s}
        await self._take_over_from(self)

    @property
    def is_running(self) -> bool:
        """Whether it has become ready and nobody has begun to stop it since."""
        return self._supervisor is not None

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return url_of(self.listeners)

    @property
    def api_key(self) -> SecretStr | None:
        """The key that the API asks for; None without one."""
        return self.settings.overload_api_keys

    @property
    def headers(self) -> dict[str, str]:
        """What a client sends with each request: the API's key, a secret; empty without one."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key.get_secret_value()}"}

    @property
    def run_folder(self) -> Path:
        """Where the present run keeps its files: a new one each time the stack starts on empty data."""
        return self.folder / f"run-{self._generation}"

    @property
    def effect_log(self) -> Path:
        """Where the worker appends each start and effect of a job."""
        return self.run_folder / EFFECTS

    @property
    def data_dir(self) -> Path:
        """The embedded store's data directory of the present generation."""
        return self.folder / f"store-{self._generation}"

    def worker_command(self) -> str:
        """The line that starts one more worker on this stack, in a terminal."""
        told = ("overload_data_dir", "overload_key_prefix", "worker_", "queue_")
        own = {name: value for name, value in self._overrides().items() if name.startswith(told)}
        pairs = [f"{name.upper()}={shlex.quote(str(value))}" for name, value in own.items()]
        if not self._wanted["upstash"]:
            pairs += ["UPSTASH_REDIS_REST_URL=", "UPSTASH_REDIS_REST_TOKEN="]  # whatever that terminal has
        return " ".join([*pairs, shlex.quote(sys.executable), "-m", "overload_demo.worker"])

    def logs(self, lines: int = 20) -> str:
        """The last lines of what the children and the store have logged."""
        files = [*sorted(self.folder.glob("*.log")), self.data_dir / "store.log"]
        tails = {file.name: tail(file, lines) for file in files if not file.name.startswith("effects")}
        return "\n".join(f"--- {name}\n{text}" for name, text in tails.items() if text)

    def process_ids(self) -> dict[str, int]:
        """Process ids by role, of what is running: api, worker (or kernel), and the embedded store's two."""
        ids = {name: part.pid for name, part in self.parts.items()}
        if self.placement == "kernel":
            ids = {"kernel": os.getpid()}
        with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
            ids["gateway"] = int(json.loads((self.data_dir / "state.json").read_text())["pid"])
            ids["redis"] = next((child.pid for child in psutil.Process(ids["gateway"]).children()), None)
        return {name: pid for name, pid in ids.items() if pid}

    def kill(self, name: str, *, hold: bool = False) -> float:
        """``kill -9`` one process: "api", "worker", "gateway" or "redis"; returns when it was dead, CLOCK_MONOTONIC.

        All of them come back: API and worker are started again here (``restarts`` counts them), the gateway starts its
        Redis, and whoever needs the store and finds no gateway starts one. With ``hold`` an API or worker stays dead
        until :meth:`bring_back`. Raises :class:`ConfigurationError` for another name or a part that lives in this
        kernel, :class:`OverloadDemoError` when it is not running.
        """
        if name not in KILLABLE:
            raise ConfigurationError(f"cannot kill {name!r}: it is one of {', '.join(KILLABLE)}")
        part = self.parts.get(name)
        if part is not None and not isinstance(part, Child):
            raise ConfigurationError(
                f'with placement="kernel" the {name} is a thread: to kill it would kill this kernel'
            )
        pid = part.pid if part is not None else self.process_ids().get(name)
        if pid is None or (part is None and not lives_in(self.data_dir, pid)):
            raise OverloadDemoError(f"the {name} is not running")
        if part is not None:
            if hold:
                self.held.add(name)
            part.kill()
        else:
            os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    def bring_back(self, name: str) -> None:
        """Let a part that was killed with ``hold`` be started again; harmless for any other."""
        self.held.discard(name)

    def rest_calls(self) -> int:
        """HTTP exchanges with the store that the API and its workers have made, as the API tells. Blocks."""
        with contextlib.closing(JsonConnection(self.url, 10.0, self.headers)) as connection:
            return int(connection.get("/queue/stats")["rest_calls"])

    async def _take_over_from(self, running: "Stack | None") -> None:
        """Begin while what ``running`` has started ends: they share nothing, and both take their time."""
        ending = None if running is None else running._ending()
        try:
            await self._begin()
        except BaseException:
            await self.stop()
            raise
        finally:
            if ending is not None:
                await finish(ending)

    async def _begin(self) -> None:
        Stack.current = self
        atexit.register(self._end_at_exit)
        self._generation += 1
        self.restarts.clear()
        self.held.clear()
        self.run_folder.mkdir(exist_ok=True)
        self.settings = load_settings(**self._overrides())
        if self.settings.uses_upstash:
            self._cleanup.callback(remove_keys, self.settings)
        else:
            DataDir(self.data_dir).mark_temporary()
        self.listeners = [self._cleanup.enter_context(listener) for listener in listen("127.0.0.1", 0)]
        if (
            self.placement == "process"
        ):  # they look for the store themselves, after imports that take as long as it does
            self.parts = self._children()
            await in_thread(start_all, self.parts.values())
        self.store = await in_thread(self._cleanup.enter_context, open_store(self.settings))
        if self.placement == "kernel":
            self.parts = self._threads()
            await in_thread(start_all, self.parts.values())
        await self._ready()
        self._supervisor = asyncio.create_task(self._supervise(self.parts))

    def _overrides(self) -> dict[str, Any]:
        own: dict[str, Any] = {
            "overload_data_dir": self.data_dir.absolute(),
            "worker_processing_delay": self._wanted["processing_delay_s"],
            "worker_effect_log": self.effect_log.absolute(),
            "worker_poll_interval": 0.05,
            "worker_max_poll_interval": 0.25,
            "queue_result_ttl": RESULT_TTL_S,
            "overload_api_keys": self._key,
        }
        if self._wanted["upstash"]:
            if not load_settings().uses_upstash:
                raise ConfigurationError("no UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN are set")
            own["overload_key_prefix"] = f"{self.folder.name}-{self._generation}:"
        else:
            own |= {"upstash_redis_rest_url": None, "upstash_redis_rest_token": None}
        shared = {"placement", "processing_delay_s", "upstash", "own_key"}
        return own | {name: value for name, value in self._wanted.items() if name not in shared}

    def _environment(self) -> dict[str, str]:
        """The environment of a child: ours, with this stack's settings."""
        environment = dict(os.environ)
        for name, value in self._overrides().items():
            environment.pop(name.upper(), None)
            if value is not None:
                environment[name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return environment

    def _threads(self) -> dict[str, Part]:
        return {
            "api": ApiThread(self.settings, self.store, self.listeners),
            "worker": WorkerThread(self.settings, self.store),
        }

    def _children(self) -> dict[str, Part]:
        environment, descriptors = self._environment(), [listener.fileno() for listener in self.listeners]
        api = Child(
            "overload_demo.api",
            ["--fds", ",".join(map(str, descriptors))],
            environment=environment,
            log=self.folder / "api.log",
            fds=descriptors,
        )
        worker = Child("overload_demo.worker", [], environment=environment, log=self.folder / "worker.log")
        return {"api": api, "worker": worker}

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not await asyncio.to_thread(is_ready, self.url):
            dead = [name for name, part in self.parts.items() if not part.pid]
            if dead or time.monotonic() > deadline:
                why = f"{dead[0]} has ended" if dead else f"not ready within {READY_WITHIN_S:g} s"
                raise OverloadDemoError(f"the stack did not start: {why}\n{self.logs(5)}")
            await asyncio.sleep(0.05)

    async def _supervise(self, parts: dict[str, Part]) -> None:
        """Start again what has died of ``parts``, and nothing of a later generation that is being started."""
        while True:
            await asyncio.sleep(SUPERVISE_EVERY_S)
            for name, part in parts.items():
                if not part.pid and name not in self.held:
                    self.restarts[name] += 1
                    await in_thread(part.start)

    def _ending(self) -> "asyncio.Task[None]":
        """Forget what has been started; from now on it ends by itself, whoever is interrupted."""
        atexit.unregister(self._end_at_exit)
        if Stack.current is self:
            Stack.current = None
        supervisor, self._supervisor = self._supervisor, None
        parts, self.parts = self.parts, {}
        cleanup, self._cleanup = self._cleanup, contextlib.ExitStack()
        data_dir = self.data_dir

        async def end() -> None:
            if supervisor is not None:
                supervisor.cancel()
                await asyncio.wait([supervisor])  # or it might start a part again that has just been stopped
            await asyncio.to_thread(_end, parts.values(), cleanup, data_dir)

        return asyncio.create_task(end())

    def _end_at_exit(self) -> None:
        _end(self.parts.values(), self._cleanup, self.data_dir)


def _end(parts: Iterable[Part], cleanup: contextlib.ExitStack, data_dir: Path) -> None:
    """End parts, then let go of what they have used: the data is removed; figures, results and logs stay."""
    stop_all(parts)
    cleanup.close()
    remove_data(data_dir)

"""A running stack for one experiment: store, API and worker on ports and data of their own.

Every start uses a fresh data directory and port 0. Nothing outlives the process that started it, even after
``kill -9``: children exit when their stdin closes, the store exits with its last user.
"""

import asyncio
import atexit
import contextlib
import os
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import SecretStr

from overload_demo.config import Settings, load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.http_server import listen, url_of
from overload_demo.lab.parts import (
    ApiThread,
    JsonConnection,
    PartGroup,
    WorkerThread,
    in_thread,
    lives_in,
    new_run_folder,
    primary_in,
    remove_abandoned,
    remove_data,
    remove_keys,
    store_processes,
    uncancelled,
)
from overload_demo.lab.simulated_cloud import SimulatedCloud, far_store
from overload_demo.process import Child
from overload_demo.store.connect import Store, open_store
from overload_demo.store.data_dir import DataDir

Placement = Literal["kernel", "process"]

EFFECTS = "effects.log"  # in the folder of a run: where the worker appends each start and effect of a job
KILLABLE = ("api", "worker", "gateway", "redis", "primary")
MOST_WORKERS = 16  # chosen: processes on one machine
READY_WITHIN_S = 30.0
SUPERVISE_EVERY_S = 0.2
RESULT_TTL_S = 86_400  # results outlive any drain, so that every job can be reconciled


class Stack:
    """Store, API and worker of one experiment; start with :meth:`start`, stop with :meth:`stop`.

    ``placement="kernel"`` runs API and worker in threads of this process, ``"process"`` as child processes; the store
    is always a process of its own. A part that dies is restarted, counted in ``restarts`` by name, unless its name is
    in ``held``. The API requires a key of its own (``headers`` contain it), so that other users of this machine cannot
    use it. Callbacks in ``on_stop`` are called once, by :meth:`stop`.
    """

    current: ClassVar["Stack | None"] = None

    def __init__(self, wanted: dict[str, Any], settings: dict[str, Any], folder: Path) -> None:
        self._wanted, self._further, self.folder = wanted, settings, folder
        self.placement: Placement = wanted["placement"]
        self.restarts: Counter[str] = Counter()
        self.parts = PartGroup()
        self.held: set[str] = set()
        self.on_stop: list[Callable[[], object]] = []
        self._key = SecretStr(secrets.token_urlsafe(24)) if wanted["own_key"] else None
        self._generation = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._cleanup = contextlib.ExitStack()
        self.cloud: SimulatedCloud | None = None
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
        round_trip_s: float | None = None,
        own_key: bool = True,
        workers: int = 1,
        nodes: int = 1,
        runs: Path = Path("runs"),
        name: str = "stack",
        **settings: Any,
    ) -> "Stack":
        """Start a stack, or return the running one if its arguments are equal; another one is stopped first.

        ``processing_delay_s`` is the work of one job, seconds. ``round_trip_s`` puts a simulated database (``cloud``)
        so far away before the store; ``upstash`` uses the account of the environment. ``own_key`` False: the API
        requires no key. ``workers``: processes, for ``placement="process"``. ``nodes``: servers of the embedded store,
        6 or more for a cluster; then a 202 waits for one replica. ``runs`` receives the run folder.
        ``settings`` are further fields of :class:`Settings`. Returns when the API is ready. Raises
        :class:`OverloadDemoError` with the last log lines if it does not become ready.
        """
        wanted: dict[str, Any] = {"placement": placement, "processing_delay_s": processing_delay_s, "upstash": upstash}
        wanted |= {"round_trip_s": round_trip_s, "own_key": own_key, "workers": workers, "nodes": nodes}
        if not 1 <= workers <= MOST_WORKERS or (workers > 1 and placement != "process"):
            raise ConfigurationError(f'workers: 1, or up to {MOST_WORKERS} with placement="process", not {workers!r}')
        running = cls.current
        if running and (running._wanted, running._further) == (wanted, settings) and running.parts["api"].pid:
            return running
        stack = cls(wanted, settings, new_run_folder(runs, name))
        await in_thread(remove_abandoned, runs)
        await stack._replace(running)
        return stack

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop everything this stack has started; may be repeated, also after a failure."""
        try:
            await uncancelled(self._begin_stop())
        finally:
            while self.on_stop:
                self.on_stop.pop()()

    async def fresh(self, processing_delay_s: float | None = None) -> None:
        """Restart on empty data; the URL changes. ``processing_delay_s`` None keeps the work of one job."""
        if processing_delay_s is not None:
            self._wanted = self._wanted | {"processing_delay_s": processing_delay_s}
        await self._replace(self)

    @property
    def is_running(self) -> bool:
        """Whether it has become ready and no stop has begun."""
        return self._supervisor is not None

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return url_of(self.listeners)

    @property
    def api_key(self) -> SecretStr | None:
        """The key that the API requires; None without one."""
        return self.settings.overload_api_keys

    @property
    def headers(self) -> dict[str, str]:
        """Headers for each request: the API's key, a secret; empty without one."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key.get_secret_value()}"}

    @property
    def run_folder(self) -> Path:
        """The folder of the present run; each start on empty data has a new one."""
        return self.folder / f"run-{self._generation}"

    @property
    def effect_log(self) -> Path:
        """Where the worker appends each start and effect of a job."""
        return self.run_folder / EFFECTS

    @property
    def data_dir(self) -> Path:
        """The embedded store's data directory of the present run."""
        return self.folder / f"store-{self._generation}"

    @property
    def has_cluster(self) -> bool:
        """Whether the store is a cluster, one of whose machines can be killed."""
        return bool(self._wanted["nodes"] > 1)

    def process_ids(self) -> dict[str, int]:
        """Return the ids of running processes: api, worker (or kernel), gateway, redis or the nodes of a cluster."""
        parts = {name: part.pid for name, part in self.parts.items()}
        ids = {"kernel": os.getpid()} if self.placement == "kernel" else parts
        return {name: pid for name, pid in (ids | store_processes(self.data_dir)).items() if pid}

    def kill(self, name: str, *, hold: bool = False) -> float:
        """``kill -9`` one process of :data:`KILLABLE`; return when it was dead, CLOCK_MONOTONIC.

        A "primary" is one of a cluster's. All are restarted: API and worker by the stack, servers by the gateway's
        process (a primary as a replica), the gateway by the next process that needs the store. With ``hold`` an API or
        worker stays dead until its name is removed from ``held``. Raises :class:`ConfigurationError` for another name
        or a part that is a thread of this kernel, :class:`OverloadDemoError` when it is not running.
        """
        check_killable(name)
        name = primary_in(self.data_dir) if name == "primary" else name
        part = self.parts.get(name)
        if part is not None and not isinstance(part, Child):
            raise ConfigurationError(f'placement="kernel": {name} is a thread: a kill would kill this Jupyter kernel')
        pid = part.pid if part else self.process_ids().get(name)
        if pid is None or not (part or lives_in(self.data_dir, pid)):
            raise OverloadDemoError(f"the {name} is not running")
        if part:
            self.held |= {name} if hold else set()
            part.kill()
        else:
            os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    def get(self, path: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return the JSON object at ``path`` of the API. Blocks. Raises as :meth:`JsonConnection.get`."""
        with contextlib.closing(JsonConnection(self.url, timeout_s, self.headers)) as connection:
            return connection.get(path)

    async def _replace(self, running: "Stack | None") -> None:
        """Start while the processes of ``running`` stop: they share nothing."""
        stopping = None if running is None else running._begin_stop()
        try:
            await self._begin()
        except BaseException:
            await self.stop()
            raise
        finally:
            if stopping is not None:
                await uncancelled(stopping)

    async def _begin(self) -> None:
        Stack.current = self
        atexit.register(self._stop_at_exit)
        self._generation += 1
        self.restarts.clear()
        self.held.clear()
        self.run_folder.mkdir(exist_ok=True)
        if not self._wanted["upstash"]:
            DataDir(self.data_dir).mark_temporary()
        if (round_trip_s := self._wanted["round_trip_s"]) is not None:
            self.cloud = await in_thread(self._cleanup.enter_context, far_store(self.data_dir, round_trip_s))
        self.settings = load_settings(**self._overrides())
        self.listeners = [self._cleanup.enter_context(listener) for listener in listen("127.0.0.1", 0)]
        if self.placement == "process":  # their imports take as long as the start of the store
            self.parts = self._children()
            await in_thread(self.parts.start)
        self.store = await in_thread(self._cleanup.enter_context, open_store(self.settings))
        if self._wanted["upstash"]:
            self._cleanup.callback(remove_keys, self.store[0], self.settings.overload_key_prefix)
        if self.placement == "kernel":
            self.parts = PartGroup(
                api=ApiThread(self.settings, self.store, self.listeners),
                worker=WorkerThread(self.settings, self.store),
            )
            await in_thread(self.parts.start)
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
            "overload_nodes": self._wanted["nodes"],
            "overload_min_replicas": int(self.has_cluster),
        }
        if self._wanted["upstash"]:
            if not load_settings().uses_upstash:
                raise ConfigurationError("no UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN are set")
            own["overload_key_prefix"] = f"{self.folder.name}-{self._generation}:"
        else:
            address = self.cloud.address if self.cloud else None
            own |= {"upstash_redis_rest_url": address and address.url}
            own |= {"upstash_redis_rest_token": address and address.token}
        return own | self._further

    def _children(self) -> PartGroup:
        environment = dict(os.environ)
        for name, value in self._overrides().items():
            environment.pop(name.upper(), None)
            if value is not None:
                environment[name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)

        def child(name: str, *arguments: str, fds: Sequence[int] = ()) -> Child:
            module, log = name.partition("-")[0], self.folder / f"{name}.log"
            return Child(f"overload_demo.{module}", arguments, environment=environment, log=log, fds=fds)

        fds = [listener.fileno() for listener in self.listeners]
        names = ["worker", *(f"worker-{number}" for number in range(2, self._wanted["workers"] + 1))]
        workers = {name: child(name) for name in names}
        return PartGroup(api=child("api", "--fds", ",".join(map(str, fds)), fds=fds), **workers)

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not await asyncio.to_thread(self._is_ready):
            dead = [name for name, part in self.parts.items() if not part.pid]
            if dead or time.monotonic() > deadline:
                why = f"{dead[0]} has ended" if dead else f"not ready within {READY_WITHIN_S:g} s"
                raise OverloadDemoError(f"the stack did not start: {why}\n{self._last_lines()}")
            await asyncio.sleep(0.05)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self.get("/health/ready", 2.0))
        return False

    def _last_lines(self) -> str:
        """Return the last log lines of the children and the store."""
        lines: list[str] = []
        for file in [*sorted(self.folder.glob("*.log")), self.data_dir / "store.log"]:
            with contextlib.suppress(OSError):
                lines += [f"--- {file.name}", *file.read_text(errors="replace").splitlines()[-5:]]
        return "\n".join(lines)

    async def _supervise(self, parts: PartGroup) -> None:
        """Restart dead parts of one generation; ``self.parts`` may already be the next one."""
        while True:
            await asyncio.sleep(SUPERVISE_EVERY_S)
            for name, part in parts.items():
                if not part.pid and name not in self.held:
                    with contextlib.suppress(OSError):  # out of descriptors: the next round tries again
                        await in_thread(parts.start, name)
                        self.restarts[name] += 1

    def _begin_stop(self) -> "asyncio.Task[None]":
        """Detach everything that was started and stop it in a task that no cancellation of the caller reaches."""
        atexit.unregister(self._stop_at_exit)
        if Stack.current is self:
            Stack.current = None
        supervisor, self._supervisor = self._supervisor, None
        parts, self.parts = self.parts, PartGroup()
        cleanup, self._cleanup = self._cleanup, contextlib.ExitStack()
        if supervisor is not None:
            supervisor.cancel()
        return asyncio.create_task(asyncio.to_thread(_stop, parts, cleanup, self.data_dir))

    def _stop_at_exit(self) -> None:
        _stop(self.parts, self._cleanup, self.data_dir)


def check_killable(name: str) -> None:
    """Raise :class:`ConfigurationError` for a part that is not in :data:`KILLABLE`."""
    if name not in KILLABLE:
        raise ConfigurationError(f"cannot kill {name!r}: it is one of {', '.join(KILLABLE)}")


def _stop(parts: PartGroup, cleanup: contextlib.ExitStack, data_dir: Path) -> None:
    """Stop parts, then release the store and remove its data. Figures, results and logs stay."""
    parts.stop()
    cleanup.close()
    remove_data(data_dir)

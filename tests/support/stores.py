"""Stores under test: a bare HTTP client, the standalone store, a user process, and the processes that run."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil
from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.rest import Address
from overload_demo.rest.loopback import connect
from overload_demo.store.connect import Store
from overload_demo.store.data_dir import DataDir
from tests.support.waiting import wait_until


class Reply(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class Rest:
    """A client of a gateway like ``curl``: it retries nothing and interprets nothing."""

    def __init__(self, url: str, token: str, read_only_token: str = "") -> None:
        self.url, self.token, self.read_only_token = url, token, read_only_token

    @classmethod
    def to(cls, store: Store) -> "Rest":
        return cls(store[0].url, store[0].token.get_secret_value())

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 20,
    ) -> Reply:
        reply = self.send_for_bytes(method, path, body, headers, timeout_s)
        return reply._replace(body=json.loads(reply.body) if reply.body else None)

    def send_for_bytes(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 20,
    ) -> Reply:
        address = Address(self.url, SecretStr(self.token))
        parts = urlsplit(address.origin)
        link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        try:
            if address.socket:
                link.sock = connect(address.socket, timeout_s)
            link.request(method, path, body, {"Authorization": f"Bearer {self.token}"} | (headers or {}))
            answer = link.getresponse()
            return Reply(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            link.close()

    def post(self, path: str, value: Any, **headers: str) -> Reply:
        names = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.send("POST", path, json.dumps(value).encode(), names)

    def run(self, *command: Any) -> Any:
        """The result of a command that must succeed."""
        reply = self.post("/", command)
        assert reply.status == 200, reply
        return reply.body["result"]


def in_store(settings: Settings, store: Store) -> tuple[dict[str, dict[str, str]], list[str]]:
    """One look at a queue: every job's hash by its id, and the ids that wait, head first."""
    script = """
        local jobs = {}
        for _, key in ipairs(redis.call('KEYS', ARGV[1] .. 'job:*')) do jobs[#jobs + 1] = redis.call('HGETALL', key) end
        return {jobs, redis.call('LRANGE', ARGV[1] .. 'jobs:queue', 0, -1)}
    """
    hashes, waiting = Rest.to(store).run("EVAL", script, 0, settings.overload_key_prefix)
    jobs = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in hashes]
    return {job["job_id"]: job for job in jobs}, waiting


def payload_in_store(settings: Settings, store: Store, job_id: str) -> Any:
    """The JSON value a job carries."""
    return json.loads(Rest.to(store).run("HGET", f"{settings.overload_key_prefix}job:{job_id}", "payload"))


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every process that works in a data directory: a gateway, a server or the nodes of a cluster, and their forks."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(data_dir.resolve()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def servers_of(data_dir: Path) -> list[psutil.Process]:
    return [process for process in processes_of(data_dir) if re.search("redis|valkey", process.name())]


def token_file(path: Path, token: str) -> Path:
    """``path``, holding a token for ``--token-file``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token)
    return path


def gateway_pid(data_dir: Path) -> int:
    state = DataDir(data_dir).read_state()
    assert state is not None
    return state.pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_all(data_dir: Path) -> None:
    """Kill every process of a store; one may end with its parent before its turn."""
    for process in processes_of(data_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until_no_process_in(data_dir: Path, timeout_s: float = 25) -> None:
    wait_until(f"no process is left in {data_dir.name}", lambda: not processes_of(data_dir), timeout_s)


@contextlib.contextmanager
def no_process_left_in(data_dir: Path) -> Iterator[Path]:
    """Fail when a process of the store outlives the block; end it in any case."""
    try:
        yield data_dir
        wait_until_no_process_in(data_dir)
    finally:
        for process in processes_of(data_dir):
            with contextlib.suppress(psutil.Error):
                process.kill()


def start_standalone(data_dir: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    """``python -m overload_demo.store`` as a child, on a free port unless ``options`` name one."""
    command = [sys.executable, "-m", "overload_demo.store", "--data-dir", str(data_dir), "--port", "0", *options]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def read_connection_lines(process: "subprocess.Popen[str]") -> Rest:
    """The client for the URL and tokens that a starting store prints; fails with its output when it ends instead."""
    printed, found = "", {}
    while len(found) < 3:
        line = process.stdout.readline()
        assert line, f"the store ended: {printed}{process.communicate()[1]}"
        printed += line
        found |= dict(re.findall(r"export UPSTASH_REDIS_REST_(URL|TOKEN)=(\S+)", line))
        found |= dict(re.findall(r"token for (read) commands only: (\S+)", line))
    return Rest(found["URL"], found["TOKEN"], found["read"])


def stop(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> tuple[int, str]:
    """Signal a child and wait for its end; returns its exit code and what it wrote to stderr."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, errors


@contextlib.contextmanager
def standalone_store(data_dir: Path, *options: str, **environment: str) -> Iterator[Rest]:
    """A standalone store for the length of a block."""
    with no_process_left_in(data_dir):
        process = start_standalone(data_dir, *options, **environment)
        try:
            yield read_connection_lines(process)
        finally:
            stop(process)


_USER = """
import sys
from pathlib import Path
from overload_demo.config import load_settings
from overload_demo.store.connect import EmbeddedStore
store = EmbeddedStore(Path(sys.argv[1]), load_settings())
print(store.acquire().token.get_secret_value(), flush=True)
for line in sys.stdin:
    print(store.refresh().token.get_secret_value(), flush=True)
store.release()
"""


class User:
    """A process that uses the embedded store until :meth:`leave`, or until it is killed."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def token(self) -> str:
        """The token that it has received last: each store has its own."""
        return self.process.stdout.readline().strip()

    def request_refresh(self) -> None:
        self.process.stdin.write("refresh\n")
        self.process.stdin.flush()

    def leave(self) -> None:
        self.process.communicate(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()

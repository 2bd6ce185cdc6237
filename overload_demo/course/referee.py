"""Play faults on a student's queue, step by step, and record the history that the checker judges.

One referee grades one file, in a process group of its own, on a Valkey of its own. It performs each step that the
processes of the file ask for, and so decides where a kill or a stop hits: every point between two steps is tried, none
is left to chance. Time is simulated.
"""

import json
import math
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

from overload_demo.course.sandbox import Zygote
from overload_demo.lab.history import Fault, Final, History, JobAttempt, Outcome, Poll, Step, Submission

ANSWER_TIMEOUT_S = 20.0  # of a process or a script that does not go on; a right one takes milliseconds
MOST_STEPS = 200  # of one call; a right one takes below ten
MOST_CALLS = 12  # of ``work``, to one worker
TICK_S = 1e-6  # simulated seconds a step: tells the order of steps
DESTRUCTIVE = re.compile(r"FLUSH\w+|SHUTDOWN|CONFIG|SCRIPT|FUNCTION|DEBUG|SWAPDB|CLIENT|(BG)?SAVE")
# Commands that would hold the one connection of the referee; Upstash's REST API has none of them either.
UNSUPPORTED = re.compile(r"B[LRZ]\w+|MULTI|EXEC|DISCARD|WATCH|WAIT\w*|MONITOR|[PS]?SUBSCRIBE|HELLO|RESET|QUIT|XREAD\w*")


class NotGradedError(Exception):
    """Why a file cannot be judged, or was ended: one line that follows its name."""


class ThrowAwayServer:
    """A Valkey below the working directory, without persistence; it ends with this process."""

    def __init__(self) -> None:
        from overload_demo.store.data_dir import SERVER_SOCKET
        from overload_demo.store.gateway import resp
        from overload_demo.store.redis_server import die_with, find_server, server_options

        command = [str(find_server(None)), *server_options("64mb", "everysec"), "--appendonly", "no"]
        null, tied = subprocess.DEVNULL, die_with(os.getpid())  # not this process's output: a reader waits for its end
        self.process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, preexec_fn=tied)
        self._resp, self._reader = resp, resp.text_reader()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(ANSWER_TIMEOUT_S)
        while self._connection.connect_ex(SERVER_SOCKET):
            if self.process.poll() is not None:
                raise NotGradedError("cannot be graded: the store for it does not start")
            time.sleep(0.002)

    def ask(self, *words: str) -> Any:
        """Return the reply to a command; an error reply is returned as an exception."""
        try:
            self._connection.sendall(self._resp.pack(words))
            while (reply := self._reader.gets()) is self._resp.INCOMPLETE:
                if not (data := self._connection.recv(65_536)):
                    raise NotGradedError("ends the store")
                self._reader.feed(data)
        except TimeoutError:
            raise NotGradedError(f"runs a script that does not end within {ANSWER_TIMEOUT_S:g} s") from None
        return reply


class Actor:
    """One process of the file: an API or a worker. ``steps`` counts what it has asked for."""

    def __init__(self, stage: "PlayStage", name: str) -> None:
        self.stage, self.name, self.steps = stage, name, 0
        self.pid, self._channel = stage.zygote.spawn()
        self._channel.settimeout(ANSWER_TIMEOUT_S)
        self._lines = self._channel.makefile("r")
        self._waiting: list[Any] = []
        self.functions: list[str] = self._read()[1]

    def call(self, name: str, *values: Any, cut: int | None = None) -> Any:
        """Call a function of the file and perform its steps; stop before step ``cut``, counted over all calls."""
        self._channel.sendall(json.dumps([name, *values]).encode() + b"\n")
        return self.go_on(cut)

    def go_on(self, cut: int | None = None) -> Any:
        """Perform the steps of the present call; returns what it returns, or :data:`CUT` before step ``cut``."""
        for _ in range(MOST_STEPS):
            kind, *words = self._waiting or self._read()
            self._waiting = []
            if kind == "returned":
                return words[0]
            if self.steps == cut:
                self._waiting = [kind, *words]
                return CUT
            self.steps += 1
            verdict, value = self.stage.perform(self, kind, words)
            if verdict == "killed":
                return CUT
            self._channel.sendall(json.dumps([verdict, value]).encode() + b"\n")
        raise NotGradedError(f"loops: one call has taken {MOST_STEPS} steps and does not return")

    def kill(self, told: str = "") -> None:
        """``kill -9`` the process and wait for its end."""
        os.kill(self.pid, signal.SIGKILL)
        self.stage.zygote.status_of(self.pid)
        self._lines.close()
        self._channel.close()
        self.pid = 0
        self.stage.add(self.name, "kill -9", told, "fault")

    def pause(self) -> None:
        """SIGSTOP: as if its machine had stopped for a while."""
        os.kill(self.pid, signal.SIGSTOP)
        self.stage.add(self.name, "SIGSTOP", "", "fault")

    def resume(self) -> Any:
        """SIGCONT: it goes on where it was stopped, and does not know it."""
        os.kill(self.pid, signal.SIGCONT)
        self.stage.add(self.name, "SIGCONT", "", "fault")
        return self.go_on()

    def _read(self) -> list[Any]:
        while True:
            try:
                line = self._lines.readline()
            except TimeoutError:
                raise NotGradedError("loops, or waits for something that is not the store") from None
            if not line:
                status = self.stage.zygote.status_of(self.pid)
                self.pid = 0
                raise NotGradedError("loops: it uses CPU and does not return" if status < 0 else "ends its own process")
            kind, *words = json.loads(line)
            if kind == "ended":
                raise NotGradedError(words[0])
            if kind != "printed":
                return [kind, *words]
            self.stage.printed.append(words[0])


CUT = object()


class PlayStage:
    """One play: a fresh store, the processes of the file, simulated time, and what happened."""

    def __init__(
        self, server: ThrowAwayServer, zygote: Zygote, bad: Callable[[int], str], result: str, *, can_refuse: bool
    ) -> None:
        self.server, self.zygote, self.bad, self.result, self.can_refuse = server, zygote, bad, result, can_refuse
        self.history, self.steps, self.printed, self.now_s = History(), list[Step](), list[str](), 0.0
        self._actors: list[Actor] = []
        self._ticks, self._told = 0, dict[str, str]()
        self.keys: dict[str, str] = {}  # the first key with an order
        server.ask("FLUSHDB")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            if actor.pid:
                os.kill(actor.pid, signal.SIGKILL)
                self.zygote.status_of(actor.pid)

    def tick(self) -> float:
        """Return the simulated time, seconds, which grows with each call."""
        self._ticks += 1
        return self.now_s + self._ticks * TICK_S

    def add(self, who: str, what: str, told: str, kind: str, job: str = "") -> None:
        """Record a step for the picture."""
        self.steps.append(Step(self.tick(), who, what, told, kind, job))

    def pass_time(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.now_s += seconds
        self.add("", f"{seconds:g} s pass", "", "time")

    def actor(self, name: str) -> Actor:
        """Start a process."""
        self._actors.append(Actor(self, name))
        return self._actors[-1]

    def submit(self, *words: str, by: str = "API", cut: int | None = None) -> "Pending":
        """Send a request, a job or a key and an order, to a new process; it is answered, or is before step ``cut``."""
        self.add("client", f"submit {' '.join(words)}", "", "client", words[0])
        self.keys.setdefault(words[-1], words[0])
        pending = Pending(self, self.actor(by), words)
        return pending.take(pending.actor.call("submit", *words, cut=cut))

    def worker(self, name: str, *values: Any, cut: int | None = None) -> tuple[Actor, bool]:
        """Start a worker and let it work until it finds no job; returns it, and whether it stopped before ``cut``."""
        worker = self.actor(name)
        if "recover" in worker.functions and worker.call("recover", cut=cut) is CUT:
            return worker, True
        return worker, self.work(worker, *values, cut=cut)

    def work(self, worker: Actor, *values: Any, cut: int | None = None) -> bool:
        """Call ``work`` until it finds no job; returns whether it stopped before step ``cut``, or was killed.

        A call without a run may have put a job aside: two in a row mean that there is none.
        """
        was_idle = False
        for _ in range(MOST_CALLS):
            runs, steps = len(self.history.starts), len(self.steps)
            if worker.call("work", *values, cut=cut) is CUT:
                return True
            if len(self.history.starts) > runs:
                was_idle = False
            elif was_idle:
                del self.steps[steps:]
                break
            else:
                was_idle = True
        return False

    def perform(self, actor: Actor, kind: str, words: Sequence[Any]) -> tuple[str, Any]:
        """Carry out one step; returns what its process is told."""
        if kind == "run":
            return self._run(actor, str(words[0]), words[1])
        if kind == "sleep":
            self.now_s += min(max(0.0, words[0]), 3600.0)
            self.add(actor.name, f"wait {words[0]:g} s", "", "command")
            return "ok", None
        script = " ".join(words[1:2] if words[0] == "EVAL" else ())
        if DESTRUCTIVE.fullmatch(words[0]) or re.search(r"\bflush(all|db)\b", script, re.I):
            raise NotGradedError(f"deletes or changes the whole store ({words[0]})")
        if UNSUPPORTED.fullmatch(words[0]):
            why = "the store neither waits nor opens transactions; use EVAL"
            return "refused", f"{words[0]} is not possible here: {why}"
        reply = self.server.ask(*words)
        is_error = isinstance(reply, Exception)
        self.add(actor.name, _shortened(words), "error" if is_error else _text(reply), "command")
        self._poll()
        return ("refused", str(reply)) if is_error else ("ok", reply)

    def fault(self, actor: Actor, what: str) -> Fault:
        """Record a fault of a worker, which explains repetition, from now on."""
        self.history.faults.append(Fault(f"{actor.name} {what}", self.tick(), self.tick()))
        return self.history.faults[-1]

    def end_fault(self, fault: Fault) -> None:
        """Let a fault last until now."""
        self.history.faults[self.history.faults.index(fault)] = Fault(fault.what, fault.began_at, self.tick())

    def finish(self) -> History:
        """Read the final state of every accepted job."""
        dead = self.server.ask("LRANGE", "dead", "0", "-1")
        dead = dead if isinstance(dead, list) else []
        for request in self.history.requests:
            job = request.job_id or ""
            if job in self._told:
                self.history.finals[job] = Final("done", self._told[job])
            elif job in dead:
                self.history.finals[job] = Final("failed")
        return self.history

    def key_of(self, job: str) -> str:
        """Return the list or sorted set that still holds a job; empty if none does."""
        for key in sorted(self.server.ask("KEYS", "*")):
            command = {"list": ("LRANGE", key, "0", "-1"), "zset": ("ZRANGE", key, "0", "-1")}
            if (kind := str(self.server.ask("TYPE", key))) in command and job in self.server.ask(*command[kind]):
                return str(key)
        return ""

    def _run(self, actor: Actor, job: str, order: str | None) -> tuple[str, Any]:
        history, number = self.history, sum(one.job_id == job for one in self.history.starts) + 1
        known = next((one.value for one in history.requests if one.job_id == job), None)
        value = known or self.keys.get(order or "", order or job)
        history.starts.append(JobAttempt(self.tick(), job, number, value, actor.name))
        self.add(actor.name, f"run {order or job}", "", "run", job)
        how = self.bad(number) if job == "j1" else ""
        if how == "kills":
            self.fault(actor, "is killed by the job")
            actor.kill("by the job")
            return "killed", None
        if how == "fails":
            self.steps[-1] = self.steps[-1]._replace(told="the work fails")
            self.fault(actor, "sees the work fail")
            return "failed", f"the work of {job} has failed"
        self.now_s += 1.0
        history.effects.append(JobAttempt(self.tick(), job, number, value, actor.name))
        result = self.result.format(job=job, worker=actor.name)
        self.steps[-1] = self.steps[-1]._replace(told=result)
        return "ok", result

    def _poll(self) -> None:
        """Read the results as a client would; a new or changed one is a step."""
        results = self.server.ask("HGETALL", "results")
        found = dict(zip(results[::2], results[1::2], strict=True)) if isinstance(results, list) else {}
        for job, result in found.items():
            if self._told.get(job) != result:
                self._told[job] = result
                self.history.polls.append(Poll(self.tick(), job, "done", result=result))
                self.add("client", f"poll {job}", f"done: {result}", "client", job)


class Pending:
    """A request on its way through an API process; ``is_cut`` until that has answered."""

    def __init__(self, stage: PlayStage, actor: Actor, words: Sequence[str]) -> None:
        self.actor, self.is_cut = actor, True
        self._stage, self._words = stage, words
        self._recorded = Submission(words[0], stage.tick(), math.inf, "info", None)
        stage.history.requests.append(self._recorded)

    def take(self, returned: Any) -> Self:
        """Take what ``submit`` has returned: the job id, where the request has a key; else whether it is accepted."""
        stage, words = self._stage, self._words
        if returned is CUT:
            return self
        if len(words) > 1 and not isinstance(returned, str):
            raise NotGradedError(f"returns {returned!r} from submit, not the job id")
        if stage.can_refuse and isinstance(returned, str):
            raise NotGradedError(f"returns {returned!r} from submit, not True or False")
        outcome: Outcome = "fail" if stage.can_refuse and not returned else "ok"
        job = returned if len(words) > 1 else words[0]
        stage.add("client", "", "refused" if outcome == "fail" else f"accepted: {job}", "client", words[0])
        self.is_cut, place = False, stage.history.requests.index(self._recorded)
        ended = replace(self._recorded, ended_at=stage.tick(), outcome=outcome, job_id=job if outcome == "ok" else None)
        stage.history.requests[place] = ended
        return self

    def resume(self) -> Self:
        """Let a stopped API process go on to the end of the request."""
        return self.take(self.actor.resume())


def _shortened(words: Sequence[str]) -> str:
    shown = ["EVAL script", *words[3:]] if words[0] == "EVAL" else list(words)
    return " ".join(shown)[:60]


def _text(reply: Any) -> str:
    return "nothing" if reply is None else str(reply)[:40]

"""The storm of ``storm.py`` in simulated seconds, with SimPy: time passes at a ``yield``, and nowhere else."""

import random

import simpy
from simpy.events import ProcessGenerator

from overload_demo.lab.storm import Cure, StormLog, StormPlan, StormRun
from overload_demo.load import RetryBudget


def simulate(plan: StormPlan, cure: Cure, budget: RetryBudget | None = None, seed: int = 0) -> StormRun:
    """Simulate clients, queue and worker; ``budget`` replaces the one of ``cure``."""
    env, chance, log, clients = simpy.Environment(), random.Random(seed), StormLog(), cure.clients
    queue, tokens = simpy.Store(env), budget or clients.new_budget()

    def arrivals() -> ProcessGenerator:
        while True:
            env.process(client())
            yield env.timeout(1 / plan.per_s)

    def client() -> ProcessGenerator:
        log.requests_s.append(env.now)
        for attempt in range(clients.attempts):
            if attempt and tokens and not tokens.take(len(log.requests_s)):
                return  # no token left: the client gives up
            if attempt:
                yield env.timeout(clients.backoff_s(attempt, chance))
            log.attempts_s.append(env.now)
            if cure.room and len(queue.items) >= cure.room:
                yield env.timeout(1.0)  # a 429 with Retry-After: 1
                continue
            end = env.event()
            queue.put((env.now, end))
            yield end | env.timeout(plan.timeout_s)
            if end.triggered and end.value == "done":
                log.in_time_s.append(env.now)
                return
            # This client no longer wants the job, but it stays in the queue, and the worker will do it.

    def worker() -> ProcessGenerator:
        while True:
            posted_s, end = yield queue.get()
            if plan.calm_s <= env.now < plan.thaws_s:
                yield env.timeout(plan.thaws_s - env.now)  # the freeze
            is_expired = cure.expires_in_s is not None and env.now - posted_s > cure.expires_in_s
            if not is_expired:
                yield env.timeout(plan.work_s)
                log.done_s.append(env.now)
            end.succeed("expired" if is_expired else "done")

    env.process(arrivals())
    env.process(worker())
    for at_s in plan.counts_at_s:
        env.run(at_s)
        log.waiting.append(len(queue.items))
    return StormRun(cure, plan, log)

"""Rung 4: an enqueue that is not idempotent.

Promise: a client that gets no answer repeats its request with the same key. However often it
does, the order is done once, and the job id is always the same. Two keys are two orders, even
if the orders are equal.
"""


def submit(store, key, order):
    """Accept an order; return the id of its job. Several APIs can do this at the same time."""
    number = store.incr("ids")
    job = f"job_{number}"
    store.hset("orders", job, order)
    store.rpush("queue", job)
    return job


def work(store, run):
    """Do the next job, if there is one. No worker is killed on this rung."""
    job = store.lmove("queue", "leased", "LEFT", "RIGHT")
    if job is None:
        return
    result = run(job, store.hget("orders", job))
    store.hset("results", job, result)
    store.lrem("leased", 1, job)

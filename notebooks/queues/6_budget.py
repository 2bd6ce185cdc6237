"""Rung 6: retry without a budget.

Promise: a job is started at most three times. A job whose work fails is tried again; after its
third attempt it goes to the list "dead" and stays there. Some jobs do not fail but kill the
worker. Every other job is done.
"""


def submit(store, job):
    """Accept a job: the client is told so when this returns."""
    store.rpush("queue", job)


def work(store, run):
    """Do the next job, if there is one; a worker calls this again and again."""
    job = store.lmove("queue", "leased", "LEFT", "RIGHT")
    if job is None:
        return
    try:
        result = run(job)
    except Exception:
        store.lmove("leased", "queue", "RIGHT", "LEFT")  # try it again
        return
    store.hset("results", job, result)
    store.lrem("leased", 1, job)


def recover(store):
    """Called when a worker starts. Only one runs at a time: the one before it is dead."""
    while store.lmove("leased", "queue", "RIGHT", "LEFT") is not None:
        pass

"""Rung 5: unbounded wait.

Promise: a job that was accepted is done within 3 s. A job takes 1 s, and one worker does one
after the other, so at most three jobs may wait. A job is refused only if three are waiting; one
that was refused never runs.
"""


def submit(store, job):
    """Return True to accept a job, False to refuse it. Several APIs can do this at once."""
    store.rpush("queue", job)
    return True


def work(store, run):
    """Do the next job, if there is one. No worker is killed on this rung."""
    job = store.lmove("queue", "leased", "LEFT", "RIGHT")
    if job is None:
        return
    result = run(job)
    store.hset("results", job, result)
    store.lrem("leased", 1, job)

"""Rung 1: pop, then record.

Promise: a job that was accepted is done, whichever worker is killed, and whenever.
"""


def submit(store, job):
    """Accept a job: the client is told so when this returns."""
    store.rpush("queue", job)


def work(store, run):
    """Do the next job, if there is one; a worker calls this again and again."""
    job = store.lpop("queue")
    if job is None:
        return
    result = run(job)
    store.hset("results", job, result)


def recover(store):
    """Called when a worker starts. Only one runs at a time: the one before it is dead."""

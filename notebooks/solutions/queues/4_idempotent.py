"""Rung 4: an enqueue that is not idempotent.

Promise: a client that gets no answer repeats its request with the same key. However often it
does, the order is done once, and the job id is always the same. Two keys are two orders, even
if the orders are equal.
"""

ENQUEUE = """
-- ARGV: key, order. Look-up and writes are one step: no kill, no other request between them.
local job = redis.call('HGET', 'keys', ARGV[1])
if job then return job end
job = 'job_' .. redis.call('INCR', 'ids')
redis.call('HSET', 'keys', ARGV[1], job)
redis.call('HSET', 'orders', job, ARGV[2])
redis.call('RPUSH', 'queue', job)
return job
"""


def submit(store, key, order):
    """Accept an order; return the id of its job. Several APIs can do this at the same time."""
    return store.eval(ENQUEUE, 0, key, order)


def work(store, run):
    """Do the next job, if there is one. No worker is killed on this rung."""
    job = store.lmove("queue", "leased", "LEFT", "RIGHT")
    if job is None:
        return
    result = run(job, store.hget("orders", job))
    store.hset("results", job, result)
    store.lrem("leased", 1, job)

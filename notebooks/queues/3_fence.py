"""Rung 3: settle without a fence.

Promise: a result that a client has read never changes, and no job is lost, although a worker
can stand still for longer than its lease.
"""

LEASE = """
-- ARGV: now. Returns a job and its fence, a number that grows with each lease of the job.
local job = redis.call('ZRANGEBYSCORE', 'leases', '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if not job then job = redis.call('LPOP', 'queue') end
if not job then return nil end
redis.call('ZADD', 'leases', ARGV[1] + 30, job)
return {job, redis.call('HINCRBY', 'fences', job, 1)}
"""

SETTLE = """
-- ARGV: job, fence, result
redis.call('ZREM', 'leases', ARGV[1])
redis.call('HSET', 'results', ARGV[1], ARGV[3])
"""


def submit(store, job):
    """Accept a job: the client is told so when this returns."""
    store.rpush("queue", job)


def work(store, run, now):
    """Do the next job, if there is one; a worker calls this again and again."""
    leased = store.eval(LEASE, 0, now)
    if leased is None:
        return
    job, fence = leased
    result = run(job)
    store.eval(SETTLE, 0, job, fence, result)

"""The queue: jobs enter by group commit, workers lease and settle them, clients read their state.

Each change of state is one Lua script in ``lua/``, atomic and safe to repeat. The keys of a shard, each after the
optional prefix::

    jobs:queue     list    ids of waiting jobs; RPUSH at the tail, leased from the head. The id of a cancelled job
                           stays as a cancelled entry until a lease or, at the head, an enqueue removes it
    job:{job_id}   hash    job_id payload status created_at seq [idem] [owner] [start_by: "DEADLINE_MS SECONDS_GIVEN"
                           by the store's clock], later attempts fence started_at, then completed_at with result or
                           error. A cancelled job has no payload, and a seq while its entry is in the list.
                           Expires only when finished and in neither list
    jobs:seq       string  sequence number of the last job enqueued
    jobs:leases    zset    id → end of its lease, ms by the store's clock
    jobs:owners    hash    id → "fence worker token place" of its live lease; place = its position in the batch
    jobs:workers   hash    worker id → "ALIVE_UNTIL_MS LEASE_TOKEN REST_CALLS", longer for a sleeping worker; a lease
                           removes old entries. A worker id is "name/random", unique to one run of a worker
    jobs:stats     hash    accepted done failed (with dead and expired) cancelled dead expired interrupted fence,
                           tombstones (cancelled entries), paused ("1" or absent), asleep ("1" while a worker may
                           sleep), and the decaying sums recent_jobs recent_busy_s recent_at.
                           accepted = done + failed + cancelled + waiting + in flight
    jobs:dead      list    {"job_id", "reason", "at"} of dead jobs, which an operator requeues or purges; bounded
    jobs:shard     string  "DEPLOYMENT_ID SHARD SHARDS" in each of several shards, written at the first start
    idem:{record}  string  "job_id fingerprint" of an Idempotency-Key; expires with its job. The record is the digest
                           of the key; where the API has keys, it begins with the owner and a dot
    jobs:wake      channel "" at a resume, or when jobs are ready and "asleep" is set (then deleted): all sleeping
                           workers lease. Other messages are ids of workers that test their subscription

Reading tour 2 of 13; next: overload_demo/queue/lua/enqueue.lua. Look for the keys that mention one job in each of its
states. Question: which keys change when a lease call returns an expired lease? Stop 7 has the answer.
"""

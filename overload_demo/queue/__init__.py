"""The queue protocol over the REST transport: enqueue by group commit, lease, extend and settle, read.

Keys (each behind the optional prefix; ``lua/`` holds every change of state, one script a file
after a shared prelude)::

    jobs:queue        list    ids waiting; RPUSH at the tail, taken at the head. The id of a cancelled job stays, as a
                              tombstone, until a lease reaches it, or an enqueue finds it at the head
    job:{job_id}      hash    job_id payload status created_at seq [idem] [owner] [start_by: "ms by the store's clock;
                              seconds it was given"], then attempts fence started_at, then completed_at and result or
                              error; a cancelled one has no payload, and a seq while it is a tombstone. Expires only
                              after it is finished, and out of the list
    jobs:seq          int     sequence number of the last job enqueued
    jobs:leases       zset    id → end of its lease, ms by the store's clock
    jobs:owners       hash    id → "fence worker token place" of its live lease, place = where in its batch
    jobs:workers      hash    worker id → "alive until, ms; last lease token; REST calls so far"; lease calls remove
                              those that are over. A worker id is "name/random", unique to one run of a worker
    jobs:stats        hash    accepted done failed (with dead and expired) cancelled dead expired interrupted fence,
                              tombstones (now in the list), paused ("1" while it is), and the fading sums
                              recent_jobs recent_busy_s recent_at.
                              accepted = done + failed + cancelled + waiting + in flight
    jobs:dead         list    {"job_id", "reason", "at"} of jobs that need a person; bounded
    idem:{record}     string  "job_id fingerprint" of an Idempotency-Key; expires with its job. The record is the
                              key's digest, behind "owner." where there are owners
"""

"""The queue protocol over the REST transport: enqueue by group commit, lease, extend and settle, read.

Keys (each behind the optional prefix; ``lua/`` holds every change of state, one script a file)::

    jobs:queue        list    ids waiting; RPUSH at the tail, taken at the head
    job:{job_id}      hash    job_id payload status created_at seq [idem], then attempts fence started_at,
                              then completed_at and result or error; expires only after it is finished
    jobs:seq          int     sequence number of the last job enqueued
    jobs:leases       zset    id → end of its lease, ms by the store's clock
    jobs:owners       hash    id → "fence worker token place" of its live lease, place = where in its batch
    jobs:workers      hash    worker id → "alive until, ms; last lease token; REST calls so far"
    jobs:stats        hash    accepted done failed dead interrupted fence, and the fading sums
                              recent_jobs recent_busy_s recent_at
    jobs:dead         list    {"job_id", "reason", "at"} of jobs that need a person; bounded
    idem:{record}     string  "job_id fingerprint" of an Idempotency-Key; expires with its job
"""

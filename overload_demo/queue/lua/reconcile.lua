-- Repair jobs that have no place, after a failover that lost keys. At most 500 jobs.
-- The caller has read the counters, then leases and owners, then the list from its tail (pushing moves ids away from
-- the tail only, so none is missed), then the jobs. A job enqueued, requeued or leased since has a greater seq or
-- fence than those counters and is skipped. Every other job is checked again here: no healthy job is changed.
-- Safe to repeat. The first write can free memory (HDEL), so a full store can be repaired.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:leases  4 jobs:owners  5 jobs:stats; derived: job:{id} and its idem:{record}
-- ARGV  1 key prefix  2 last seq then  3 fence then  4 lease, ms  5 seconds a finished job is kept
--       then for each job: id, '1' = was in the list or had a lease or an owner, '0' = was in none
-- Reply: for each job '' = healthy, 'queued' = waits again at the tail, 'leased' = has a lease again, which expires
--       unless its worker extends it, 'freed' = a lease or owner without a running job was removed,
--       'cancelled' = cancelled and no longer in the list: expires now
local reply, last_seq, last_fence, ttl = {}, argument(2), argument(3), argument(5)
local lease_until = digits(now + argument(4))
redis.call('LLEN', KEYS[1]) -- these lines check the types
redis.call('GET', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('HDEL', KEYS[5], '')

local function repair(id, had_place)
  local job = job_fields(id, 'status', 'seq', 'fence', 'idem')
  local status, seq = job[1] or '', number(job[2]) or 0
  local has_lease = redis.call('ZSCORE', KEYS[3], id)
  if status ~= 'processing' and redis.call('ZREM', KEYS[3], id) + redis.call('HDEL', KEYS[4], id) > 0 then
    return 'freed'
  end
  if had_place and (status ~= 'processing' or has_lease) then return '' end
  if (number(job[3]) or 0) > last_fence then return '' end
  if status == 'processing' then
    if not has_lease then redis.call('ZADD', KEYS[3], lease_until, id) end
    return 'leased'
  end
  if status == 'queued' then
    if seq <= last_seq then
      redis.call('HDEL', job_key(id), 'fence')
      append_job(id, KEYS[1], KEYS[2], KEYS[5])
    end
    return 'queued'
  end
  if status == 'cancelled' and job[2] and seq <= last_seq then
    redis.call('HDEL', job_key(id), 'seq')
    expire_job(id, ttl, job[4])
    if (count_in(redis.call('HGET', KEYS[5], 'tombstones')) or 0) > 0 then add(KEYS[5], 'tombstones', -1) end
    return 'cancelled'
  end
  return ''
end

for i = 6, #ARGV, 2 do reply[#reply + 1] = repair(ARGV[i], ARGV[i + 1] == '1') end
return reply

-- Mend jobs that belong nowhere, after a failover that has lost some keys. At most 500 jobs.
--
-- The caller has read first the counters, then leases and owners, then the list from its tail (a job cannot slip past:
-- pushing moves others away from the tail only), and then the jobs. Whatever was enqueued, requeued or leased since
-- has a greater seq or fence than the counters had, and is none of ours; the rest is looked at again here, in one
-- step, so that a healthy job is left alone however busy the queue is. Repeating it is harmless.
-- The first write could free memory (HDEL), so a full store can be mended.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:leases  4 jobs:owners  5 jobs:stats
-- ARGV  1 key prefix  2 last seq then  3 fence then  4 lease, ms  5 seconds a finished job is kept
--       then for each job: id, '1' = was in the list or had a lease or an owner, '0' = was in none
-- Derived keys: job:{id} and its idem:{record}
-- Reply: for each job '' = healthy, 'queued' = waits again at the tail, 'leased' = has a lease again, which expires
--        unless a worker still extends it, 'freed' = a lease or owner without a running job was removed,
--        'buried' = cancelled, and not in the list any more: expires now
local prefix, last_seq, last_fence, ttl = ARGV[1], whole(2), whole(3), whole(5)
local time = redis.call('TIME')
local lease_until = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + whole(4))
redis.call('LLEN', KEYS[1]) -- a key of another type is met before the first write
redis.call('ZCARD', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('HDEL', KEYS[5], '')

local function mended(id, was_somewhere)
  local key = prefix .. 'job:' .. id
  local job = redis.pcall('HMGET', key, 'status', 'seq', 'fence', 'idem')
  local status = not job.err and job[1] or ''
  local has_lease = redis.call('ZSCORE', KEYS[3], id)
  if status ~= 'processing' then
    local freed = redis.call('ZREM', KEYS[3], id) + redis.call('HDEL', KEYS[4], id)
    if freed > 0 then return 'freed' end
  end
  if was_somewhere and (status ~= 'processing' or has_lease) then return '' end
  if (tonumber(job[3] or '') or 0) > last_fence then return '' end
  if status == 'processing' then
    if not has_lease then redis.call('ZADD', KEYS[3], lease_until, id) end
    return 'leased'
  end
  local seq = tonumber(job[2] or '') or 0
  if status == 'queued' then
    if seq <= last_seq then
      redis.call('HDEL', key, 'fence')
      local next_seq = string.format('%.0f', last_sequence(KEYS[1], KEYS[2], prefix) + 1)
      redis.call('SET', KEYS[2], next_seq)
      redis.call('HSET', key, 'seq', next_seq)
      redis.call('RPUSH', KEYS[1], id)
    end
    return 'queued'
  end
  if status == 'cancelled' and job[2] and seq <= last_seq then
    redis.call('HDEL', key, 'seq')
    redis.call('EXPIRE', key, ttl)
    if job[4] then redis.call('EXPIRE', prefix .. 'idem:' .. job[4], ttl) end
    if (count_in(redis.call('HGET', KEYS[5], 'tombstones')) or 0) > 0 then add(KEYS[5], 'tombstones', -1) end
    return 'buried'
  end
  return ''
end

local reply = {}
for i = 6, #ARGV, 2 do reply[#reply + 1] = mended(ARGV[i], ARGV[i + 1] == '1') end
return reply

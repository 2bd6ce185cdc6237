-- Read the queue's numbers in one consistent look. Writes nothing.
-- KEYS  1 jobs:queue  2 jobs:leases  3 jobs:stats  4 jobs:workers  5 jobs:dead; derived: job:{id} of the head
-- ARGV  1 key prefix
-- Reply: {entries of the list (cancelled too), in flight, created_at of the oldest waiting job or '', {ids of live
--       workers}, dead letters, REST calls of all known workers, now (seconds), then fields and values of jobs:stats}
local workers, calls = live_workers(KEYS[4])
local created_at = ''
for index = 0, 99 do
  local id = redis.call('LINDEX', KEYS[1], index)
  local job = id and job_fields(id, 'created_at', 'status') or {}
  created_at = job[1] or ''
  if job[2] ~= 'cancelled' then break end
end
return {
  redis.call('LLEN', KEYS[1]), redis.call('ZCARD', KEYS[2]), created_at, workers, redis.call('LLEN', KEYS[5]), calls,
  string.format('%.3f', now / 1000), unpack(redis.call('HGETALL', KEYS[3])),
}

-- Read the queue's numbers in one consistent look. Writes nothing.
--
-- KEYS  1 jobs:queue  2 jobs:leases  3 jobs:stats  4 jobs:workers  5 jobs:dead
-- ARGV  1 key prefix
-- Derived keys: job:{id} of the ids at the head, at most 100: cancelled ones are passed over
-- Reply: {entries of the list (tombstones of cancelled jobs included), in flight, created_at of the oldest waiting job
--       or '', live workers, dead-list length, REST calls of all known workers, now (seconds), then the fields and
--       values of jobs:stats}
local time = redis.call('TIME')
local now_s = time[1] + time[2] / 1000000
local workers, calls = 0, 0
for _, sign in ipairs(redis.call('HVALS', KEYS[4])) do
  local alive_until, its_calls = string.match(sign, '^(%d+) %S+ (%d+)$')
  if tonumber(alive_until or '0') > now_s * 1000 then workers = workers + 1 end
  calls = math.min(calls + tonumber(its_calls or '0'), 1e15)
end
local created_at = ''
for index = 0, 99 do
  local id = redis.call('LINDEX', KEYS[1], index)
  local job = id and redis.pcall('HMGET', ARGV[1] .. 'job:' .. id, 'created_at', 'status')
  created_at = job and job[1] or ''
  if not job or job[2] ~= 'cancelled' then break end
end
return {
  redis.call('LLEN', KEYS[1]), redis.call('ZCARD', KEYS[2]), created_at, workers, redis.call('LLEN', KEYS[5]), calls,
  string.format('%.6f', now_s), unpack(redis.call('HGETALL', KEYS[3])),
}

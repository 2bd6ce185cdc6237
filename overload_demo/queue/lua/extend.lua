-- Extend the leases that this worker still holds. A lease with a newer fence is reported as lost and not changed.
-- Safe to repeat. The first write can free memory (HDEL), so leases can be extended while the store is full.
--
-- KEYS  1 jobs:leases  2 jobs:owners  3 jobs:workers
-- ARGV  1 lease, ms  2 worker id  3 the worker's REST calls so far, then for each job: id, fence
-- Reply: {lost id, lost id, ...}
local until_ms = digits(now + argument(1))
local ids, scores, lost = {}, {}, {}
for i = 4, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local owners = #ids > 0 and redis.call('HMGET', KEYS[2], unpack(ids)) or {}
for i, id in ipairs(ids) do
  if owners[i] and string.match(owners[i], '^%d+') == ARGV[2 * i + 3] then
    scores[#scores + 1], scores[#scores + 2] = until_ms, id
  else
    lost[#lost + 1] = id
  end
end
redis.call('HDEL', KEYS[3], '')
if #scores > 0 then redis.call('ZADD', KEYS[1], 'XX', unpack(scores)) end
local sign = redis.call('HGET', KEYS[3], ARGV[2])
local token = sign and string.match(sign, '^%d+ (%S+)') or '-'
redis.call('HSET', KEYS[3], ARGV[2], until_ms .. ' ' .. token .. ' ' .. ARGV[3])
return lost

-- Put right counters that have fallen behind the jobs they count. Writes nothing where all is well.
--
-- KEYS  1 jobs:seq  2 jobs:stats
-- ARGV  1 greatest seq and  2 greatest fence that a job has  3 cancelled and  4 tombstones as they were before the
--       jobs were counted  5 tombstones counted ('' = not counted); of use only if nobody has cancelled meanwhile
-- Reply: {names of the counters that were wrong}
local wrong = {}
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
  wrong[#wrong + 1] = 'jobs:seq'
  redis.call('SET', KEYS[1], ARGV[1])
end
local now = redis.call('HMGET', KEYS[2], 'fence', 'cancelled', 'tombstones')
if tonumber(now[1] or 0) < tonumber(ARGV[2]) then
  wrong[#wrong + 1] = 'fence'
  redis.call('HSET', KEYS[2], 'fence', ARGV[2])
end
local is_as_before = (now[2] or '0') == ARGV[3] and (now[3] or '0') == ARGV[4]
if ARGV[5] ~= '' and is_as_before and (now[3] or '0') ~= ARGV[5] then
  wrong[#wrong + 1] = 'tombstones'
  redis.call('HSET', KEYS[2], 'tombstones', ARGV[5])
end
return wrong

-- Correct counters that are behind the jobs they count. Writes nothing to a healthy store. Safe to repeat.
--
-- KEYS  1 jobs:seq  2 jobs:stats
-- ARGV  1 greatest seq and  2 greatest fence of any job  3 cancelled and  4 tombstones as stored before the jobs were
--       counted  5 tombstones counted ('' = not counted); used only if no job was cancelled in between
-- Reply: {names of the counters that were wrong}
local wrong = {}
local greatest_seq, greatest_fence = whole(1), whole(2)
local now = redis.call('HMGET', KEYS[2], 'fence', 'cancelled', 'tombstones')
if (count_in(redis.call('GET', KEYS[1]) or '0') or -1) < greatest_seq then
  wrong[#wrong + 1] = 'jobs:seq'
  redis.call('SET', KEYS[1], ARGV[1])
end
if (count_in(now[1] or '0') or -1) < greatest_fence then
  wrong[#wrong + 1] = 'fence'
  redis.call('HSET', KEYS[2], 'fence', ARGV[2])
end
local is_unchanged = (now[2] or '0') == ARGV[3] and (now[3] or '0') == ARGV[4]
if ARGV[5] ~= '' and is_unchanged and (now[3] or '0') ~= ARGV[5] then
  wrong[#wrong + 1] = 'tombstones'
  redis.call('HSET', KEYS[2], 'tombstones', ARGV[5])
end
return wrong

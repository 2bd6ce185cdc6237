-- Correct counters that are behind the jobs they count. Writes nothing to a healthy store. Safe to repeat.
--
-- KEYS  1 jobs:seq  2 jobs:stats
-- ARGV  1 greatest seq and  2 greatest fence of any job  3 cancelled and  4 tombstones as stored before the jobs were
--       counted  5 tombstones counted; used only if no job was cancelled in between
-- Reply: {names of the counters that were wrong}
local wrong, greatest_seq, greatest_fence = {}, argument(1), argument(2)
local function correct(name, is_wrong, ...)
  if is_wrong then
    wrong[#wrong + 1] = name
    redis.call(...)
  end
end
local stored = redis.call('HMGET', KEYS[2], 'fence', 'cancelled', 'tombstones')
local cancelled, tombstones = stored[2] or '0', stored[3] or '0'
local is_unchanged = cancelled == ARGV[3] and tombstones == ARGV[4]
correct('jobs:seq', (count_in(redis.call('GET', KEYS[1]) or '0') or -1) < greatest_seq, 'SET', KEYS[1], ARGV[1])
correct('fence', (count_in(stored[1] or '0') or -1) < greatest_fence, 'HSET', KEYS[2], 'fence', ARGV[2])
correct('tombstones', is_unchanged and tombstones ~= ARGV[5], 'HSET', KEYS[2], 'tombstones', ARGV[5])
return wrong

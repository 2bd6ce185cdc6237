-- Take jobs off the dead list and let them wait again, at the tail, as if they were new: attempts from zero, no
-- deadline (they did start). At most 100 jobs.
--
-- Idempotent: a job that waits already is reported as waiting. The first write frees memory (LREM).
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:dead  4 jobs:stats
-- ARGV  1 key prefix, then for each job: id, its entry of the dead list
-- Derived key: job:{id}
-- Reply: for each job 'queued', or why it was left alone: 'no payload', 'not dead', 'unknown', or the state it is in
local prefix, reply = ARGV[1], {}
redis.call('HLEN', KEYS[4]) -- a key of another type is met before the first write
local last_seq = last_sequence(KEYS[1], KEYS[2], prefix)
for i = 2, #ARGV, 2 do
  local id, key = ARGV[i], ARGV[1] .. 'job:' .. ARGV[i]
  local job = redis.pcall('HMGET', key, 'status', 'payload')
  local verdict = job.err and 'no payload' or job[1] or 'unknown'
  if verdict == 'failed' and not job[2] then
    verdict = 'no payload'
  elseif verdict == 'failed' then
    verdict = 'not dead'
    if redis.call('LREM', KEYS[3], 1, ARGV[i + 1]) == 1 then
      verdict = 'queued'
      last_seq = last_seq + 1
      local next_seq = string.format('%.0f', last_seq)
      redis.call('HDEL', key, 'attempts', 'fence', 'started_at', 'completed_at', 'error', 'start_by')
      redis.call('HSET', key, 'status', 'queued', 'seq', next_seq)
      redis.call('SET', KEYS[2], next_seq)
      redis.call('RPUSH', KEYS[1], id)
      add(KEYS[4], 'failed', -1)
    end
  end
  reply[#reply + 1] = verdict
end
return reply

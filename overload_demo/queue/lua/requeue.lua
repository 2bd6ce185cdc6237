-- Move jobs from the dead-letter list to the tail of the queue as if they were new: attempts from zero, and no
-- deadline, since they did start. At most 100 jobs.
-- Idempotent: a job that waits already is reported as queued. The first write frees memory (LREM).
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:dead  4 jobs:stats; derived: job:{id}
-- ARGV  1 key prefix, then for each job: id, its entry of the dead-letter list
-- Reply: for each job 'queued', or why it was not changed: 'no payload', 'not dead', 'unknown', or its state
local reply = {}
redis.call('LLEN', KEYS[1]) -- these lines check the types
redis.call('HLEN', KEYS[4])
last_sequence(KEYS[1], KEYS[2])
for i = 2, #ARGV, 2 do
  local id, key = ARGV[i], job_key(ARGV[i])
  local job = redis.pcall('HMGET', key, 'status', 'payload')
  local verdict = job.err and 'no payload' or job[1] or 'unknown'
  if verdict == 'failed' and not job[2] then
    verdict = 'no payload'
  elseif verdict == 'failed' and redis.call('LREM', KEYS[3], 1, ARGV[i + 1]) == 0 then
    verdict = 'not dead'
  elseif verdict == 'failed' then
    verdict = 'queued'
    redis.call('HDEL', key, 'attempts', 'fence', 'started_at', 'completed_at', 'error', 'start_by')
    append_job(id, KEYS[1], KEYS[2], KEYS[4])
    add(KEYS[4], 'failed', -1)
  end
  reply[#reply + 1] = verdict
end
return reply

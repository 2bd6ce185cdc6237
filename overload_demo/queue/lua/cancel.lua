-- Cancel waiting jobs. Their ids stay in the list as cancelled entries: removing them from the middle would be slow
-- and would make other positions wrong. The lease or enqueue that removes an entry sets the job's TTL: a job that
-- expired before would look as if its data had been lost. At most 256 jobs.
-- Idempotent. The first write frees memory (HDEL of the payload), so a full store can still cancel.
--
-- KEYS  1 jobs:stats; derived: job:{id}
-- ARGV  1 key prefix  2 now, as stored in completed_at, then for each job: id, requesting owner ('' = any)
-- Reply: for each job its state afterwards; nil if it is unknown or belongs to another owner
redis.call('HLEN', KEYS[1]) -- checks its type
local reply, cancelled = {}, 0
for i = 3, #ARGV, 2 do
  local id, owner = ARGV[i], ARGV[i + 1]
  local job = job_fields(id, 'status', 'owner', 'seq')
  local state = job[1] or false
  if owner ~= '' and job[2] ~= owner then state = false end
  if state == 'queued' then
    state, cancelled = 'cancelled', cancelled + 1
    redis.call('HDEL', job_key(id), 'payload')
    -- seq marks that the entry is still in the list; it is deleted together with the entry
    redis.call('HSET', job_key(id), 'status', 'cancelled', 'completed_at', ARGV[2], 'seq', job[3] or '0')
  end
  reply[#reply + 1] = state
end
add(KEYS[1], 'tombstones', cancelled, 'cancelled', cancelled)
return reply

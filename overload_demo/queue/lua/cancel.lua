-- Cancel jobs that are waiting. Their ids stay in the list, as tombstones, until a lease reaches them: taking them out
-- of the middle would take time and spoil the positions of others. The lease then sets the TTL, not we: a job that
-- expired while its id is still in the list would look as if its data had been lost. An enqueue takes out those at
-- the head. At most 256 jobs.
--
-- Idempotent. The first write frees memory (HDEL of the payload), so a full store can still cancel.
--
-- KEYS  1 jobs:stats
-- ARGV  1 key prefix  2 now, as stored in completed_at, then for each job: id, owner who asks ('' = anybody may)
-- Derived key: job:{id}
-- Reply: for each job its state from now on; nil if there is no such job, or it is somebody else's
redis.call('HLEN', KEYS[1]) -- a key of another type is met before the first write
local reply, cancelled = {}, 0
for i = 3, #ARGV, 2 do
  local key, owner = ARGV[1] .. 'job:' .. ARGV[i], ARGV[i + 1]
  local job = redis.pcall('HMGET', key, 'status', 'owner', 'seq')
  local state = not job.err and job[1] or false
  if owner ~= '' and job[2] ~= owner then state = false end
  if state == 'queued' then
    state, cancelled = 'cancelled', cancelled + 1
    redis.call('HDEL', key, 'payload')
    -- its seq says from now on that the id is still in the list; the lease that takes it out deletes it
    redis.call('HSET', key, 'status', 'cancelled', 'completed_at', ARGV[2], 'seq', job[3] or '0')
  end
  reply[#reply + 1] = state
end
if cancelled > 0 then
  add(KEYS[1], 'tombstones', cancelled)
  add(KEYS[1], 'cancelled', cancelled)
end
return reply

-- Read the state of a batch of jobs, and what their positions and waiting times are computed from. Writes nothing.
-- The position of a job that was never leased is the length of the list minus the jobs enqueued after it, O(1):
-- sequence numbers follow the order of RPUSH, and jobs leave and return at the head only. A job that was leased
-- before (it has a fence) is near the head and is searched for there. Cancelled jobs keep their place until a lease
-- or an enqueue removes them at the head, so the position is an upper bound: exact while no earlier job is cancelled.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:stats  4 jobs:workers; derived: job:{id}
-- ARGV  1 key prefix  2 entries at the head to search for a returned job  3 most bytes of results, then the ids
-- Reply: {live workers, recent_jobs, recent_busy_s, then for each job: nil if unknown, else
--       {status, position, started_at, result, error, owner if it has one}}; it ends early, after at least one job,
--       once its results reach the most bytes: ask again for the rest
local length, most_bytes = redis.call('LLEN', KEYS[1]), argument(3)
local last_seq = count_in(redis.call('GET', KEYS[2]) or '0') or 0
local stats = redis.call('HMGET', KEYS[3], 'recent_jobs', 'recent_busy_s', 'tombstones')
local waiting = length - (count_in(stats[3]) or 0)
local reply = { #live_workers(KEYS[4]), stats[1] or '0', stats[2] or '0' }
local bytes = 0
for i = 4, #ARGV do
  if bytes >= most_bytes then break end
  local job = job_fields(ARGV[i], 'status', 'seq', 'fence', 'started_at', 'result', 'error', 'owner')
  if not job[1] then
    reply[#reply + 1] = false
  else
    local position = 0
    if job[1] == 'queued' then
      position = length - (last_seq - (count_in(job[2]) or last_seq))
      if job[3] then
        local index = redis.call('LPOS', KEYS[1], ARGV[i], 'MAXLEN', ARGV[2])
        position = index and index + 1 or position
      end
      position = math.max(1, math.min(position, waiting))
    end
    bytes = bytes + #(job[5] or '')
    reply[#reply + 1] = { job[1], position, job[4] or '', job[5] or '', job[6] or '', job[7] or nil }
  end
end
return reply

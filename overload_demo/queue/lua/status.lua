-- Read the state of a batch of jobs, with what is needed to tell position and waiting time. Writes nothing.
--
-- Position of a job never leased: queue length minus how many came after it, O(1): sequence numbers are given in the
-- order of RPUSH, jobs leave at the head only, and returned jobs come back at the head. A job that was leased before
-- (it has a fence) sits within the first few entries and is looked up there. Cancelled jobs keep their place until a
-- lease reaches it, so the position is an upper bound: exact while nobody before this job has been cancelled.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:stats  4 jobs:workers
-- ARGV  1 key prefix  2 how far from the head a returned job can be  3 most bytes of results, then the ids
-- The reply ends early, after at least one job, when the results in it reach that many bytes: ask for the rest.
-- Reply: {live workers, recent_jobs, recent_busy_s, then for each job: nil if unknown, else
--       {status, position, started_at, result, error, owner if it has one}}
local prefix = ARGV[1]
local depth, most_bytes = redis.call('LLEN', KEYS[1]), whole(3)
local last_seq = count_in(redis.call('GET', KEYS[2]) or '0') or 0
local stats = redis.call('HMGET', KEYS[3], 'recent_jobs', 'recent_busy_s', 'tombstones')
local waiting = depth - (count_in(stats[3]) or 0)
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local workers = 0
for _, sign in ipairs(redis.call('HVALS', KEYS[4])) do
  if tonumber(string.match(sign, '^%d+') or '0') > now_ms then workers = workers + 1 end
end
local reply = { workers, stats[1] or '0', stats[2] or '0' }
local bytes = 0
for i = 4, #ARGV do
  if bytes >= most_bytes then break end
  local job = redis.pcall('HMGET', prefix .. 'job:' .. ARGV[i],
    'status', 'seq', 'fence', 'started_at', 'result', 'error', 'owner')
  if job.err or not job[1] then
    reply[#reply + 1] = false
  else
    local position = 0
    if job[1] == 'queued' then
      position = depth - (last_seq - (count_in(job[2]) or last_seq))
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

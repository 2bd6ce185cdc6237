-- Read what a repair must know of jobs. Writes nothing. At most 1,000 jobs.
--
-- ARGV  1 key prefix, then the ids
-- Derived key: job:{id}
-- Reply: for each job {status, seq, fence}, each '' if it has none
local reply = {}
for i = 2, #ARGV do
  local job = redis.pcall('HMGET', ARGV[1] .. 'job:' .. ARGV[i], 'status', 'seq', 'fence')
  if job.err then job = {} end
  reply[#reply + 1] = { job[1] or '', job[2] or '', job[3] or '' }
end
return reply

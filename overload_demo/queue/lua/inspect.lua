-- Read what a repair needs to know about jobs. Writes nothing. At most 1,000 jobs.
--
-- KEYS  none; derived: job:{id}
-- ARGV  1 key prefix, then the ids
-- Reply: for each job {status, seq, fence}, each '' if absent
local reply = {}
for i = 2, #ARGV do
  local job = job_fields(ARGV[i], 'status', 'seq', 'fence')
  reply[#reply + 1] = { job[1] or '', job[2] or '', job[3] or '' }
end
return reply

-- Remove entries from the dead-letter list; their jobs expire like any other finished job. At most 500 entries.
-- Safe to repeat. The first write frees memory (LREM).
--
-- KEYS  1 jobs:dead; derived: job:{id} and its idem:{record}
-- ARGV  1 key prefix  2 seconds a finished job is kept, then for each entry: id ('' = it names none), the entry
local ttl = argument(2)
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  if redis.call('LREM', KEYS[1], 1, ARGV[i + 1]) == 1 and id ~= '' then
    local job = redis.pcall('HMGET', job_key(id), 'status', 'idem')
    if job.err or job[1] == 'failed' then expire_job(id, ttl, job[2]) end
  end
end
return 'OK'

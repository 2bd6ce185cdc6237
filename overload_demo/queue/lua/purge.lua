-- Take entries off the dead list; their jobs are kept no longer than any other finished job. At most 500 entries.
--
-- Repeating it is harmless. The first write frees memory (LREM).
--
-- KEYS  1 jobs:dead
-- ARGV  1 key prefix  2 seconds a finished job is kept, then for each entry: id ('' = it names none), the entry
-- Derived keys: job:{id} and its idem:{record}
local ttl = whole(2)
for i = 3, #ARGV, 2 do
  local key = ARGV[1] .. 'job:' .. ARGV[i]
  if redis.call('LREM', KEYS[1], 1, ARGV[i + 1]) == 1 and ARGV[i] ~= '' then
    local job = redis.pcall('HMGET', key, 'status', 'idem')
    if job.err or job[1] == 'failed' then redis.call('EXPIRE', key, ttl) end
    if job[1] == 'failed' and job[2] then redis.call('EXPIRE', ARGV[1] .. 'idem:' .. job[2], ttl) end
  end
end
return 'OK'

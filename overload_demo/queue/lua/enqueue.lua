-- Enqueue a batch: each job becomes durable and visible, or is refused, in one step. At most 1,000 jobs.
-- Idempotent by job id: an existing job is reported as accepted and not changed, so the caller may repeat the whole
-- call after a lost reply. A repeated or refused job uses no sequence number. The first write is an HSET, which a full
-- server refuses: then nothing at all is written.
-- Cancelled jobs at the head of the list are removed. Cancelled entries behind a waiting job stay. They do
-- not count as depth but take memory, so a list of twice the bound takes no job.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:stats  4 jobs:workers; derived: job:{id}, also of the head, idem:{record}
-- ARGV  1 key prefix  2 bound on depth (0 = none)  3 bound on wait, seconds (0 = none)
--       4 service time assumed until one is measured, seconds  5 created_at  6 seconds a finished job is kept
--       then for each job: id, payload, options: '' or 'RECORD WITHIN OWNER FINGERPRINT', each '-' if absent:
--       idempotency record, seconds within which it must start, owner, fingerprint of the body
-- Reply: {estimated wait of the next job, seconds as text, verdict, verdict, ...}; a verdict is '+' accepted,
--       '=ID' the same request was accepted before as ID, '!' same key with another body, 'f' queue full
-- Reading tour 3 of 13; next: overload_demo/queue/group_commit.py. Look for the line that makes a repeat harmless.
-- Question: why must the first write be one that a full server refuses?
local max_depth, max_wait_s, service_s, ttl = argument(2), argument(3, true), argument(4, true), argument(6)
local MOST_REMOVED = 200 -- cancelled entries in one call; more than the jobs of a usual batch
local NO_OPTIONS = { '-', '-', '-', '-' }
local first, width = 7, 3

local count, job_keys, options = (#ARGV - first + 1) / width, {}, {}
for i = 1, count do
  local at = first + (i - 1) * width
  job_keys[i] = job_key(ARGV[at])
  if ARGV[at + 2] ~= '' then
    options[i] = { string.match(ARGV[at + 2], '^(%S+) (%S+) (%S+) (.+)$') }
    if not options[i][1] then error('argument ' .. at + 2 .. ' holds no options') end
    if options[i][2] ~= '-' and not number(options[i][2]) then error('argument ' .. at + 2 .. ' has no deadline') end
  end
end
local any_known = redis.call('EXISTS', unpack(job_keys)) > 0

local measured = redis.call('HMGET', KEYS[3], 'recent_jobs', 'recent_busy_s', 'tombstones', 'asleep')
local entries, cancelled = redis.call('LLEN', KEYS[1]), {}
local depth = math.max(0, entries - (count_in(measured[3]) or 0))
if entries > depth then -- found here, removed after the first write, which a full store refuses
  for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, MOST_REMOVED - 1)) do
    local job = job_fields(id, 'status', 'idem')
    if job[1] ~= 'cancelled' then break end
    cancelled[#cancelled + 1] = { id, job[2] }
  end
end
if (number(measured[1]) or 0) > 0 then
  service_s = math.max(0, math.min((number(measured[2]) or 0) / number(measured[1]), 86400))
end
local per_job_s = service_s / math.max(1, #live_workers(KEYS[4]))

local bound = max_depth > 0 and max_depth or math.huge
if max_wait_s > 0 and per_job_s > 0 then bound = math.min(bound, math.floor(max_wait_s / per_job_s)) end
local room = math.min(count, bound - depth, 2 * bound - (entries - #cancelled))

local last_seq = last_sequence(KEYS[1], KEYS[2])
local accepted, verdicts, in_this_call = {}, {}, {}
for i = 1, count do
  local id, payload = ARGV[first + (i - 1) * width], ARGV[first + (i - 1) * width + 1]
  local record, within_s, owner, fingerprint = unpack(options[i] or NO_OPTIONS)
  local earlier = record ~= '-' and redis.pcall('GET', prefix .. 'idem:' .. record)
  if type(earlier) == 'table' then earlier = '' end -- a key of another type matches no request
  if in_this_call[id] or (any_known and redis.call('EXISTS', job_keys[i]) == 1) then
    verdicts[i] = '+'
  elseif earlier then
    local earlier_id, earlier_fingerprint = string.match(earlier, '^(%S+) (%S+)$')
    verdicts[i] = earlier_fingerprint == fingerprint and '=' .. earlier_id or '!'
  elseif #accepted >= room then
    verdicts[i] = 'f'
  else
    accepted[#accepted + 1] = id
    in_this_call[id] = true
    local fields = { 'job_id', id, 'payload', payload, 'status', 'queued', 'created_at', ARGV[5],
      'seq', last_seq + #accepted }
    if options[i] then
      local start_by = within_s ~= '-' and digits(now + math.ceil(1000 * tonumber(within_s))) .. ' ' .. within_s
      for name, value in pairs({ idem = record, owner = owner, start_by = start_by or '-' }) do
        if value ~= '-' then fields[#fields + 1], fields[#fields + 2] = name, value end
      end
    end
    redis.call('HSET', job_keys[i], unpack(fields))
    if record ~= '-' then redis.call('SET', prefix .. 'idem:' .. record, id .. ' ' .. fingerprint) end
    verdicts[i] = '+'
  end
end
if #accepted > 0 then
  redis.call('RPUSH', KEYS[1], unpack(accepted))
  redis.call('SET', KEYS[2], digits(last_seq + #accepted))
  add(KEYS[3], 'accepted', #accepted)
  if measured[4] then wake(KEYS[3]) end
end
if #cancelled > 0 then
  redis.call('LPOP', KEYS[1], #cancelled)
  local removed = 0
  for _, job in ipairs(cancelled) do
    removed = removed + redis.call('HDEL', job_key(job[1]), 'seq') -- 0 for a second entry of the same job
    expire_job(job[1], ttl, job[2])
  end
  add(KEYS[3], 'tombstones', -removed)
end
return { tostring((depth + #accepted) * per_job_s), unpack(verdicts) }

-- Enqueue a batch: each job becomes durable and visible, or is refused, in one step. At most 1,000 jobs.
--
-- Idempotent by job id: a job that exists already is reported as accepted and changes nothing, so the caller may
-- repeat the whole call after a lost reply. A repeated or refused job uses up no sequence number.
-- The first write is an HSET, which the server refuses when it is full: then nothing at all was written. A key of
-- another type is met before it. A value that is no number counts as none.
-- Cancelled jobs at the head of the list are taken out. The depth does not count those behind a waiting job, but they
-- take memory: the list holds no more than twice the bound.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:stats  4 jobs:workers
-- ARGV  1 key prefix  2 bound on depth (0 = none)  3 bound on wait, seconds (0 = none)
--       4 service time to assume before any was measured, seconds  5 created_at  6 seconds a finished job is kept
--       then for each job: id, payload, options: '' or 'RECORD WITHIN OWNER FINGERPRINT', each '-' if it has none:
--       idempotency record, seconds within which it must start, owner, fingerprint of the body
-- Derived keys: job:{id}, also of ids at the head of jobs:queue, and idem:{record}
-- Reply: {estimated wait of a job enqueued next, seconds as text, verdict, verdict, ...}; a verdict is
--       '+' accepted, '=ID' the same request was accepted before as ID, '!' same key with another body, 'f' queue full
local prefix, max_depth, max_wait_s, service_s, ttl = ARGV[1], whole(2), argument(3), argument(4), whole(6)
local MOST_TAKEN_OUT = 200 -- cancelled entries in one call, more than the jobs of a usual batch
local first, width = 7, 3

local count, job_keys, options = (#ARGV - first + 1) / width, {}, {}
for i = 1, count do
  local at = first + (i - 1) * width
  job_keys[i] = prefix .. 'job:' .. ARGV[at]
  if ARGV[at + 2] ~= '' then
    options[i] = { string.match(ARGV[at + 2], '^(%S+) (%S+) (%S+) (.+)$') }
    if not options[i][1] then error('argument ' .. at + 2 .. ' holds no options') end
    if options[i][2] ~= '-' and not number(options[i][2]) then error('argument ' .. at + 2 .. ' has no deadline') end
  end
end
local any_known = redis.call('EXISTS', unpack(job_keys)) > 0

local measured = redis.call('HMGET', KEYS[3], 'recent_jobs', 'recent_busy_s', 'tombstones')
local entries, cancelled = redis.call('LLEN', KEYS[1]), {}
local depth = math.max(0, entries - (count_in(measured[3]) or 0))
if entries > depth then -- cancelled jobs at the head: taken out below, after the first write that a full store refuses
  for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, MOST_TAKEN_OUT - 1)) do
    local job = redis.pcall('HMGET', prefix .. 'job:' .. id, 'status', 'idem')
    if job.err or job[1] ~= 'cancelled' then break end
    cancelled[#cancelled + 1] = { prefix .. 'job:' .. id, job[2] }
  end
end
if (number(measured[1]) or 0) > 0 then
  service_s = math.max(0, math.min((number(measured[2]) or 0) / number(measured[1]), 86400))
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local workers = 0
for _, sign in ipairs(redis.call('HVALS', KEYS[4])) do
  if tonumber(string.match(sign, '^%d+') or '0') > now_ms then workers = workers + 1 end
end
local per_job_s = service_s / math.max(1, workers)

local bound = max_depth > 0 and max_depth or math.huge
if max_wait_s > 0 and per_job_s > 0 then bound = math.min(bound, math.floor(max_wait_s / per_job_s)) end
-- Cancelled entries between waiting jobs take memory too: the list holds at most twice the bound.
local room = math.min(count, bound - depth, 2 * bound - (entries - #cancelled))

local last_seq = last_sequence(KEYS[1], KEYS[2], prefix)
local accepted, verdicts, in_this_call = {}, {}, {}
for i = 1, count do
  local id, payload = ARGV[first + (i - 1) * width], ARGV[first + (i - 1) * width + 1]
  local record, within_s, owner, fingerprint = '-', '-', '-', '-'
  if options[i] then record, within_s, owner, fingerprint = unpack(options[i]) end
  local earlier = record ~= '-' and redis.pcall('GET', prefix .. 'idem:' .. record)
  if type(earlier) == 'table' then earlier = '' end -- a key of another type: nobody's request
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
    local function add(name, value)
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
    if record ~= '-' then add('idem', record) end
    if within_s ~= '-' then
      add('start_by', string.format('%.0f %s', now_ms + math.ceil(1000 * tonumber(within_s)), within_s))
    end
    if owner ~= '-' then add('owner', owner) end
    redis.call('HSET', job_keys[i], unpack(fields))
    if record ~= '-' then redis.call('SET', prefix .. 'idem:' .. record, id .. ' ' .. fingerprint) end
    verdicts[i] = '+'
  end
end
if #accepted > 0 then
  redis.call('RPUSH', KEYS[1], unpack(accepted))
  redis.call('SET', KEYS[2], string.format('%.0f', last_seq + #accepted))
  add(KEYS[3], 'accepted', #accepted)
end
if #cancelled > 0 then
  redis.call('LPOP', KEYS[1], #cancelled)
  local taken_out = 0
  for _, job in ipairs(cancelled) do
    taken_out = taken_out + redis.call('HDEL', job[1], 'seq') -- 0 for a stray second entry
    redis.call('EXPIRE', job[1], ttl)
    if job[2] then redis.call('EXPIRE', prefix .. 'idem:' .. job[2], ttl) end
  end
  add(KEYS[3], 'tombstones', -taken_out)
end
return { tostring((depth + #accepted) * per_job_s), unpack(verdicts) }

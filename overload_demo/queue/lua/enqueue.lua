-- Enqueue a batch: each job becomes durable and visible, or is refused, in one step. At most 1,000 jobs.
--
-- Idempotent by job id: a job that exists already is reported as accepted and changes nothing, so the caller may
-- repeat the whole call after a lost reply. A repeated or refused job uses up no sequence number.
-- The first write is an HSET, which the server refuses when it is full: then nothing at all was written. A key of
-- another type is met before it. A value that is no number counts as none.
--
-- KEYS  1 jobs:queue  2 jobs:seq  3 jobs:stats  4 jobs:workers
-- ARGV  1 key prefix  2 bound on depth (0 = none)  3 bound on wait, seconds (0 = none)
--       4 service time to assume before any was measured, seconds  5 created_at
--       then for each job: id, payload, options: '' or 'RECORD WITHIN OWNER FINGERPRINT', each '-' if it has none:
--       idempotency record, seconds within which it must start, owner, fingerprint of the body
-- Derived keys: job:{id}, idem:{record}
-- Reply: {estimated wait of a job enqueued next, seconds as text, verdict, verdict, ...}; a verdict is
--       '+' accepted, '=ID' the same request was accepted before as ID, '!' same key with another body, 'f' queue full
local prefix, max_depth, max_wait_s = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local count = (#ARGV - 5) / 3

local function number(text) -- nil for what is none, or not finite
  local value = tonumber(text or '')
  return value and value == value and math.abs(value) ~= math.huge and value or nil
end

local function count_in(text) -- nil for what is no whole number
  local value = string.match(text or '', '^%d+$') and tonumber(text)
  return value and value < 1e15 and value or nil
end

local job_keys = {}
for i = 1, count do
  job_keys[i] = prefix .. 'job:' .. ARGV[3 * i + 3]
end
local any_known = redis.call('EXISTS', unpack(job_keys)) > 0

local measured = redis.call('HMGET', KEYS[3], 'recent_jobs', 'recent_busy_s', 'tombstones')
local depth = math.max(0, redis.call('LLEN', KEYS[1]) - (count_in(measured[3]) or 0))
local service_s = tonumber(ARGV[4])
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

local room = count
if max_depth > 0 then room = math.min(room, max_depth - depth) end
if max_wait_s > 0 and per_job_s > 0 then
  room = math.min(room, math.floor(max_wait_s / per_job_s) - depth)
end

local last_seq = count_in(redis.call('GET', KEYS[2]) or '0')
if not last_seq then -- the last job's number tells it as well
  local last = redis.call('LINDEX', KEYS[1], -1)
  local its_seq = last and redis.pcall('HGET', prefix .. 'job:' .. last, 'seq')
  last_seq = type(its_seq) == 'string' and count_in(its_seq) or 0
end
local accepted, verdicts, in_this_call = {}, {}, {}
for i = 1, count do
  local id, payload, options = ARGV[3 * i + 3], ARGV[3 * i + 4], ARGV[3 * i + 5]
  local record, within_s, owner, fingerprint = '-', '-', '-', '-'
  if options ~= '' then record, within_s, owner, fingerprint = string.match(options, '^(%S+) (%S+) (%S+) (.+)$') end
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
  if type(redis.pcall('HINCRBY', KEYS[3], 'accepted', #accepted)) ~= 'number' then
    redis.call('HSET', KEYS[3], 'accepted', #accepted)
  end
end
return { tostring((depth + #accepted) * per_job_s), unpack(verdicts) }

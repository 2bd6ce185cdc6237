-- The start of every script. Arguments and the types of keys are checked before the first write: an error between two
-- writes would leave jobs without a place and out of every counter. A stored value that is not a number counts as none.
local prefix = ARGV[1] -- of all keys; extend and recount derive no keys and get none
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- ms by the store's clock

local function digits(value) return string.format('%.0f', value) end -- tostring would write 1.7e+12
local function job_key(id) return prefix .. 'job:' .. id end
local function number(text) -- nil unless it is a finite number
  local value = tonumber(text or '')
  return value and value == value and math.abs(value) ~= math.huge and value or nil
end
local function count_in(text) -- nil unless it is a whole number
  local value = string.match(text or '', '^%d+$') and tonumber(text)
  return value and value < 1e15 and value or nil
end
local function argument(at, is_fraction) -- from the caller; at most 1e12: added to now, EXPIRE still accepts it
  local value = number(ARGV[at])
  if not value or value < 0 or value > 1e12 or (value % 1 ~= 0 and not is_fraction) then
    error('argument ' .. at .. ' is no number in range')
  end
  return value
end
local function job_fields(id, ...) -- no fields if its key is not a hash
  local fields = redis.pcall('HMGET', job_key(id), ...)
  return fields.err and {} or fields
end
local function expire_job(id, ttl, record) -- and its idempotency record, if it has one
  redis.call('EXPIRE', job_key(id), ttl)
  if record and record ~= '' then redis.call('EXPIRE', prefix .. 'idem:' .. record, ttl) end
end
local function add(key, counter, count, ...) -- further pairs may follow; a counter that is no number starts again
  if count ~= 0 and type(redis.pcall('HINCRBY', key, counter, count)) ~= 'number' then
    redis.call('HSET', key, counter, count)
  end
  if ... then add(key, ...) end
end
local function last_sequence(list, counter) -- of the last job enqueued; if the counter is not a number, from its hash
  local last_seq = count_in(redis.call('GET', counter) or '0')
  local last = not last_seq and redis.call('LINDEX', list, -1)
  return last_seq or (last and count_in(job_fields(last, 'seq')[1])) or 0
end

local function wake(stats) -- all workers that may sleep, once; without the right to publish they do not sleep
  if redis.call('HDEL', stats, 'asleep') == 1 then redis.pcall('PUBLISH', prefix .. 'jobs:wake', '') end
end
local function append_job(id, list, counter, stats) -- let a job wait at the tail, as the last one enqueued
  local seq = digits(last_sequence(list, counter) + 1)
  redis.call('HSET', job_key(id), 'status', 'queued', 'seq', seq)
  redis.call('SET', counter, seq)
  redis.call('RPUSH', list, id)
  wake(stats)
end

local function live_workers(workers) -- their ids, and the REST calls of all known ones
  local alive, calls, signs = {}, 0, redis.call('HGETALL', workers)
  for i = 1, #signs, 2 do
    local alive_until, its_calls = string.match(signs[i + 1], '^(%d+) ?%S* ?(%d*)')
    if tonumber(alive_until or '0') > now then alive[#alive + 1] = signs[i] end
    calls = math.min(calls + (tonumber(its_calls or '') or 0), 1e15)
  end
  return alive, calls
end

-- The list is bounded: the job of an entry that falls off expires like any other finished job.
local function add_dead_letter(list, most, ttl, id, reason, at)
  local length = redis.call('RPUSH', list, cjson.encode({ job_id = id, reason = reason, at = at }))
  for _ = 1, length - most do
    local is_json, entry = pcall(cjson.decode, redis.call('LPOP', list))
    local oldest = is_json and type(entry) == 'table' and type(entry.job_id) == 'string' and entry.job_id
    local job = oldest and job_fields(oldest, 'status', 'idem') or {}
    if job[1] == 'failed' then expire_job(oldest, ttl, job[2]) end -- else its job was requeued, or never was one
  end
end

-- Lease jobs from the head of the queue to one worker, after bringing back the leases that have expired.
--
-- One step: whoever dies at any moment leaves each job either waiting or leased, never in between.
-- A repeated call with the same lease token returns the same jobs again, so a lost reply is harmless.
-- The first write frees memory (ZREM, LPOP, HDEL), so a full store can still be drained.
-- A job that was interrupted before (attempts > 0) is leased alone: if it is poison, it takes nobody with it.
-- Cancelled jobs, and those that were to start by a time that has passed, are taken out of the list on the way. A job
-- that was interrupted did start: no deadline ends it any more. While the queue is paused nothing is leased.
-- A key of another type is met before the first write; a value that is no number counts as none.
--
-- KEYS  1 jobs:queue  2 jobs:leases  3 jobs:owners  4 jobs:dead  5 jobs:stats  6 jobs:workers
-- ARGV  1 key prefix  2 worker id  3 lease token  4 lease, ms  5 most jobs  6 most payload bytes  7 most attempts
--       8 now, as stored in started_at  9 worker ids, with blanks between, that are proved dead: their leases come back
--       10 the worker's REST calls so far (published with its sign of life)  11 seconds a finished job is kept
--       12 most entries of the dead list
-- Derived keys: job:{id} of ids read from jobs:queue, jobs:leases and jobs:dead, idem:{record} of these jobs
-- Reply: {fence, jobs waiting, jobs in flight, hint, id, payload, attempt, idempotency record, id, ...}; the hint
--       explains why there are no jobs: 'paused', 'again' = there may be some further on, '' = there are none
local prefix, worker, token, now_iso = ARGV[1], ARGV[2], ARGV[3], ARGV[8]
local lease_ms, most_jobs, most_bytes, most_attempts = whole(4), whole(5), whole(6), whole(7)
local ttl, most_dead = whole(11), whole(12)
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local MOST_PASSED_OVER = 200 -- in one call; whoever calls is told to come again
local MOST_TAKEN_BACK = 1000 -- in one call; the others come back when they expire
local SIGNS_LOOKED_AT = 100 -- in one call, at random, so that those of dead workers are soon removed
local alive_until = string.format('%.0f', now_ms + lease_ms)

local control = redis.call('HMGET', KEYS[5], 'tombstones', 'paused', 'fence')
local tombstones, is_paused = count_in(control[1]) or 0, control[2] == '1'
local last_fence = count_in(control[3] or '0') or now_ms -- ahead of any count

local dead_workers, is_dead = {}, {}
for id in string.gmatch(ARGV[9], '%S+') do
  dead_workers[#dead_workers + 1] = id
  is_dead[id] = true
end

-- Publish this worker's sign of life and remove signs that are over: readers walk through all of them.
local function sign_of_life()
  local signs = redis.call('HRANDFIELD', KEYS[6], SIGNS_LOOKED_AT, 'WITHVALUES')
  for i = 1, #signs, 2 do
    if (tonumber(string.match(signs[i + 1], '^%d+') or '') or 0) < now_ms then
      dead_workers[#dead_workers + 1] = signs[i]
    end
  end
  redis.call('HDEL', KEYS[6], '', unpack(dead_workers)) -- a first write that could free memory, if there was none yet
  redis.call('HSET', KEYS[6], worker, alive_until .. ' ' .. token .. ' ' .. ARGV[10])
end

local function parts_of(owner)
  local fence, holder, lease_token, place = string.match(owner, '^(%d+) (%S+) (%S+) ?(%d*)$')
  return holder, lease_token, fence, tonumber(place)
end

local function job(id)
  local fields = redis.pcall('HMGET', prefix .. 'job:' .. id,
    'status', 'payload', 'attempts', 'idem', 'seq', 'start_by')
  return not fields.err and fields or nil
end

local function let_expire(letter)
  local is_json, entry = pcall(cjson.decode, letter)
  local id = is_json and type(entry) == 'table' and entry.job_id
  local fields = type(id) == 'string' and job(id)
  if fields and fields[1] == 'failed' then -- else it is no dead job's letter, or no longer
    redis.call('EXPIRE', prefix .. 'job:' .. id, ttl)
    if fields[4] then redis.call('EXPIRE', prefix .. 'idem:' .. fields[4], ttl) end
  end
end

local function dead_letter(id, reason)
  -- pcall: the key of an unreadable job may hold anything
  redis.pcall('HSET', prefix .. 'job:' .. id, 'status', 'failed', 'error', reason, 'completed_at', now_iso)
  redis.call('RPUSH', KEYS[4], cjson.encode({ job_id = id, reason = reason, at = now_iso }))
  add(KEYS[5], 'dead', 1)
  add(KEYS[5], 'failed', 1)
  if redis.call('LLEN', KEYS[4]) > most_dead then
    -- the dead list is bounded; what falls off it is kept no longer than any other finished job
    let_expire(redis.call('LPOP', KEYS[4]))
  end
end

-- What the reply begins with.
local function head(fence, count)
  local entries, hint = redis.call('LLEN', KEYS[1]), ''
  if is_paused then hint = 'paused' elseif count == 0 and entries > 0 then hint = 'again' end
  return { fence, math.max(0, entries - tombstones), redis.call('ZCARD', KEYS[2]), hint }
end

-- A repeated call: the same answer.
local sign = redis.call('HGET', KEYS[6], worker)
if sign and string.match(sign, '^%d+ (%S+)') == token then
  local fence, again = '0', {}
  local owners = redis.call('HGETALL', KEYS[3]) -- in no order, when there are many
  for i = 1, #owners, 2 do
    local holder, its_token, its_fence, place = parts_of(owners[i + 1])
    local fields = holder == worker and its_token == token and job(owners[i])
    if fields then
      fence = its_fence
      local attempt = string.format('%.0f', count_in(fields[3]) or 1)
      again[#again + 1] = { place or 0, owners[i], fields[2] or '', attempt, fields[4] or '' }
    end
  end
  table.sort(again, function(a, b) return a[1] < b[1] end)
  local reply = head(fence, #again)
  for _, entry in ipairs(again) do
    for i = 2, 5 do reply[#reply + 1] = entry[i] end
  end
  return reply
end

-- Expired leases, and those of workers proved dead: back to the head in their old order, or to the dead list.
redis.call('HLEN', KEYS[3])
local back = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, 500)
if #dead_workers > 0 then
  local seen = {}
  for _, id in ipairs(back) do seen[id] = true end
  local owners = redis.call('HGETALL', KEYS[3])
  for i = 1, #owners, 2 do
    local holder = parts_of(owners[i + 1])
    if holder and is_dead[holder] and not seen[owners[i]] and #back < MOST_TAKEN_BACK then
      back[#back + 1] = owners[i]
    end
  end
end
if #back > 0 then
  redis.call('LLEN', KEYS[1])
  redis.call('LLEN', KEYS[4])
  redis.call('ZREM', KEYS[2], unpack(back))
  redis.call('HDEL', KEYS[3], unpack(back))
  local again = {}
  for _, id in ipairs(back) do
    local fields = job(id)
    if fields and fields[1] == 'processing' then
      local attempts = count_in(fields[3]) or 1
      if attempts >= most_attempts then
        dead_letter(id, 'interrupted ' .. attempts .. ' times: the worker died or the job ran too long')
      else
        redis.call('HSET', prefix .. 'job:' .. id, 'status', 'queued')
        again[#again + 1] = { id, count_in(fields[5]) or 0 }
      end
    end
  end
  table.sort(again, function(a, b) return a[2] > b[2] end)
  for _, entry in ipairs(again) do redis.call('LPUSH', KEYS[1], entry[1]) end
  add(KEYS[5], 'interrupted', #again)
end

local function is_late(start_by)
  return start_by and now_ms > (count_in(string.match(start_by, '^%d+')) or now_ms)
end

-- Choose from the head, by count and by bytes; always at least one, if need be from behind those passed over.
local chosen, unreadable, passed_over, seen, bytes, looked_at = {}, {}, {}, {}, 0, 0
local has_moved_on = { processing = true, done = true, failed = true }
repeat
  local ids = is_paused and {} or redis.call('LRANGE', KEYS[1], 0, most_jobs - 1)
  local taken = 0
  for _, id in ipairs(ids) do
    local fields = job(id)
    local attempts = fields and count_in(fields[3]) or 0
    if #chosen > 0 and (attempts > 0 or bytes + #(fields and fields[2] or '') > most_bytes) then break end
    taken = taken + 1
    if seen[id] then -- a stray second entry, dropped
    elseif not fields or not fields[1] then
      unreadable[#unreadable + 1] = { id, 'no job data under its key' }
    elseif fields[1] == 'cancelled' or (fields[1] == 'queued' and attempts == 0 and is_late(fields[6])) then
      passed_over[#passed_over + 1] = { id, fields }
    elseif fields[1] == 'queued' then
      chosen[#chosen + 1] = { id, fields[2] or '', attempts + 1, fields[4] or '' }
      bytes = bytes + #(fields[2] or '')
      if attempts > 0 then break end
    elseif not has_moved_on[fields[1]] then -- else a stray second entry of a job that has moved on
      unreadable[#unreadable + 1] = { id, 'its state is none' }
    end
    seen[id] = true
  end
  if #unreadable > 0 then redis.call('LLEN', KEYS[4]) end
  if taken > 0 then redis.call('LPOP', KEYS[1], taken) end
  looked_at = looked_at + taken
until #chosen > 0 or #ids == 0 or looked_at >= MOST_PASSED_OVER
for _, entry in ipairs(unreadable) do dead_letter(entry[1], 'unreadable: ' .. entry[2]) end

-- Those passed over are finished, and kept as long as any other finished job.
local buried, expired = 0, 0
for _, entry in ipairs(passed_over) do
  local key, fields = prefix .. 'job:' .. entry[1], entry[2]
  if fields[1] == 'cancelled' then
    buried = buried + redis.call('HDEL', key, 'seq') -- 0 for a stray second entry
  else
    expired = expired + 1
    redis.call('HSET', key, 'status', 'failed', 'completed_at', now_iso,
      'error', 'expired: not started within ' .. (string.match(fields[6], ' (%S+)') or '?') .. ' s')
  end
  redis.call('EXPIRE', key, ttl)
  if fields[4] then redis.call('EXPIRE', prefix .. 'idem:' .. fields[4], ttl) end
end
if buried > 0 then
  tombstones = tombstones - buried
  add(KEYS[5], 'tombstones', -buried)
end
if expired > 0 then
  add(KEYS[5], 'expired', expired)
  add(KEYS[5], 'failed', expired)
end

local fence = '0'
if #chosen > 0 then
  fence = string.format('%.0f', last_fence + 1)
  redis.call('HSET', KEYS[5], 'fence', fence)
  local owner = fence .. ' ' .. worker .. ' ' .. token .. ' '
  local leases, owners = {}, {}
  for i, entry in ipairs(chosen) do
    redis.call('HSET', prefix .. 'job:' .. entry[1], 'status', 'processing', 'started_at', now_iso,
      'attempts', entry[3], 'fence', fence)
    leases[2 * i - 1], leases[2 * i] = alive_until, entry[1]
    owners[2 * i - 1], owners[2 * i] = entry[1], owner .. i
  end
  redis.call('ZADD', KEYS[2], unpack(leases))
  redis.call('HSET', KEYS[3], unpack(owners))
end
sign_of_life()
local reply = head(fence, #chosen)
for _, entry in ipairs(chosen) do
  for i = 1, 4 do reply[#reply + 1] = tostring(entry[i]) end
end
return reply

-- Settle a batch: write results, dead-letter, or put unstarted jobs back at the head in their old order.
--
-- Fenced: a job whose lease has gone to somebody else is left alone, and so is one that is on the dead list because its
-- last lease expired: clients may have read that it failed. Write-once: a repeated call reports success
-- for what it settled before. The first write frees memory (ZREM), so a full store can still be drained. A key of
-- another type is met before it; a value that is no number counts as none.
--
-- KEYS  1 jobs:queue  2 jobs:leases  3 jobs:owners  4 jobs:dead  5 jobs:stats
-- ARGV  1 key prefix  2 seconds a finished job is kept  3 time constant of the recent rates, seconds
--       4 seconds the worker was busy with these jobs  5 most entries of the dead list
--       then for each job: id, fence, verdict ('done', 'failed', 'dead', 'released'), result or error, started_at,
--       completed_at, attempt, idempotency record
-- Derived keys: job:{id} and idem:{record}, also of what falls off the dead list
-- Reply: for each job 1 = settled, 0 = fenced: its lease was lost and nothing was changed
local prefix, ttl, fade_s, busy_s, most_dead = ARGV[1], whole(2), argument(3), argument(4), whole(5)
local first, width = 6, 8
local was = redis.call('HMGET', KEYS[5], 'recent_jobs', 'recent_busy_s', 'recent_at', 'done', 'failed', 'dead')
local ids, list_of = {}, { released = KEYS[1], dead = KEYS[4] }
local counts, released, finished_jobs = { done = 0, failed = 0, dead = 0, released = 0 }, {}, 0
for i = first, #ARGV, width do
  ids[#ids + 1] = ARGV[i]
  whole(i + 6)
  if not counts[ARGV[i + 2]] or not ARGV[i + 7] then error('argument ' .. i + 2 .. ' is no verdict') end
  local list = list_of[ARGV[i + 2]]
  if list then
    redis.call('LLEN', list)
    list_of[ARGV[i + 2]] = nil
  end
end
local owners = redis.call('HMGET', KEYS[3], unpack(ids))

local function let_expire(letter)
  local is_json, entry = pcall(cjson.decode, letter)
  local id = is_json and type(entry) == 'table' and entry.job_id
  local fields = type(id) == 'string' and redis.pcall('HMGET', prefix .. 'job:' .. id, 'status', 'idem')
  if fields and fields[1] == 'failed' then -- else it is no dead job's letter, or no longer
    redis.call('EXPIRE', prefix .. 'job:' .. id, ttl)
    if fields[2] then redis.call('EXPIRE', prefix .. 'idem:' .. fields[2], ttl) end
  end
end

-- Whether the job is just as this settlement, under the same fence, would have left it: then it did, before.
local function was_settled_so(id, fence, verdict, text, attempt)
  local now = redis.pcall('HMGET', prefix .. 'job:' .. id, 'fence', 'status', 'attempts', 'result', 'error')
  if now.err or now[1] ~= fence then return false end
  if verdict == 'released' then return now[2] == 'queued' and now[3] == string.format('%.0f', attempt - 1) end
  if verdict == 'done' then return now[2] == 'done' and now[4] == text end
  return now[2] == 'failed' and now[5] == text
end

local held, reply = {}, {}
for i, id in ipairs(ids) do
  local at = first + (i - 1) * width
  local fence = ARGV[at + 1]
  if owners[i] and string.match(owners[i], '^%d+') == fence then
    reply[i] = 1
    held[#held + 1] = id
  else
    reply[i] = was_settled_so(id, fence, ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]) and 2 or 0
  end
end
if #held > 0 then
  redis.call('ZREM', KEYS[2], unpack(held))
  redis.call('HDEL', KEYS[3], unpack(held))
end

for i, id in ipairs(ids) do
  if reply[i] == 1 then
    local at = first + (i - 1) * width
    local verdict, text, started_at, completed_at = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    local key = prefix .. 'job:' .. id -- written by pcall: it may have become anything
    counts[verdict] = counts[verdict] + 1
    if verdict == 'released' then
      -- it never started: the attempt is refunded
      redis.pcall('HSET', key, 'status', 'queued', 'attempts', tonumber(ARGV[at + 6]) - 1)
      released[#released + 1] = id
    else
      finished_jobs = finished_jobs + 1
      local field = verdict == 'done' and 'result' or 'error'
      redis.pcall('HSET', key, 'status', verdict == 'done' and 'done' or 'failed', field, text,
        'started_at', started_at, 'completed_at', completed_at)
      if verdict == 'dead' then
        redis.call('RPUSH', KEYS[4], cjson.encode({ job_id = id, reason = text, at = completed_at }))
      else
        redis.call('EXPIRE', key, ttl)
        if ARGV[at + 7] ~= '' then redis.call('EXPIRE', prefix .. 'idem:' .. ARGV[at + 7], ttl) end
      end
    end
  end
end
for i = #released, 1, -1 do redis.call('LPUSH', KEYS[1], released[i]) end

if counts.dead > 0 then
  -- the dead list is bounded; what falls off it is kept no longer than any other finished job
  local excess = redis.call('LLEN', KEYS[4]) - most_dead
  for _ = 1, excess do
    let_expire(redis.call('LPOP', KEYS[4]))
  end
end

local function total(stored, more)
  local before = string.match(stored or '', '^%d+$') and tonumber(stored) or 0
  return string.format('%.0f', (before < 1e15 and before or 0) + more)
end

-- Recent rates by exponential decay: recent_jobs / time constant = drain rate, recent_busy_s / recent_jobs = service time.
if finished_jobs > 0 then
  local time = redis.call('TIME')
  local now_s = time[1] + time[2] / 1000000
  local fade = math.exp(-math.max(0, now_s - (number(was[3]) or now_s)) / fade_s)
  redis.call('HSET', KEYS[5],
    'recent_jobs', string.format('%.17g', (number(was[1]) or 0) * fade + finished_jobs),
    'recent_busy_s', string.format('%.17g', (number(was[2]) or 0) * fade + busy_s),
    'recent_at', string.format('%.6f', now_s),
    'done', total(was[4], counts.done),
    'failed', total(was[5], counts.failed + counts.dead),
    'dead', total(was[6], counts.dead))
end
for i = 1, #reply do
  if reply[i] == 2 then reply[i] = 1 end
end
return reply

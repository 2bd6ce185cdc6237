-- Settle a batch: store results, add dead letters, or put unstarted jobs back at the head in their old order.
-- Fenced: a job whose lease was taken back is not changed, whether another worker has it or it waits again. A job that
-- became a dead letter is not changed either: clients may have read that it failed. Write-once: a repeated call reports
-- success for what it settled before. The first write frees memory (ZREM), so a full store still drains.
--
-- KEYS  1 jobs:queue  2 jobs:leases  3 jobs:owners  4 jobs:dead  5 jobs:stats; derived: job:{id}, idem:{record}
-- ARGV  1 key prefix  2 seconds a finished job is kept  3 time constant of the recent rates, seconds
--       4 seconds the worker was busy with these jobs  5 most dead letters, then for each job: id, fence, verdict
--       ('done', 'failed', 'dead', 'released'), result or error, started_at, completed_at, attempt, idempotency record
-- Reply: for each job 1 = settled, 0 = fenced: its lease was lost and nothing was changed
-- Reading tour 8 of 13; next: overload_demo/queue/consumer.py. Look for the check of the fence. Question: how does a
-- repeated call know that it settled the job before?
local ttl, fade_s, busy_s, most_dead = argument(2), argument(3, true), argument(4, true), argument(5)
local first, width = 6, 8
local was = redis.call('HMGET', KEYS[5], 'recent_jobs', 'recent_busy_s', 'recent_at', 'done', 'failed', 'dead')
local ids, counts, released = {}, { done = 0, failed = 0, dead = 0, released = 0 }, {}
local list_of = { released = KEYS[1], dead = KEYS[4] }
for i = first, #ARGV, width do
  local verdict = ARGV[i + 2]
  ids[#ids + 1] = ARGV[i]
  argument(i + 6)
  if not counts[verdict] or not ARGV[i + 7] then error('argument ' .. i + 2 .. ' is no verdict') end
  if list_of[verdict] then redis.call('LLEN', list_of[verdict]) end -- checks its type
end
local owners = redis.call('HMGET', KEYS[3], unpack(ids))

-- Whether the job is in the state that this settlement, under the same fence, left it in.
local function was_settled_so(id, fence, verdict, text, attempt)
  local job = job_fields(id, 'fence', 'status', 'attempts', 'result', 'error')
  if job[1] ~= fence then return false end
  if verdict == 'released' then return job[2] == 'queued' and job[3] == digits(attempt - 1) end
  if verdict == 'done' then return job[2] == 'done' and job[4] == text end
  return job[2] == 'failed' and job[5] == text
end

local held, is_held, reply = {}, {}, {}
for i, id in ipairs(ids) do
  local at = first + (i - 1) * width
  local fence = ARGV[at + 1]
  if owners[i] and string.match(owners[i], '^%d+') == fence then
    held[#held + 1], is_held[i], reply[i] = id, true, 1
  else
    reply[i] = was_settled_so(id, fence, ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]) and 1 or 0
  end
end
if #held > 0 then
  redis.call('ZREM', KEYS[2], unpack(held))
  redis.call('HDEL', KEYS[3], unpack(held))
end

for i, id in ipairs(ids) do
  if is_held[i] then
    local at = first + (i - 1) * width
    local verdict, text, started_at, completed_at = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    counts[verdict] = counts[verdict] + 1
    -- pcall: the key may have become anything, which must not stop the rest of the batch
    if verdict == 'released' then -- it never started: the attempt is refunded
      redis.pcall('HSET', job_key(id), 'status', 'queued', 'attempts', tonumber(ARGV[at + 6]) - 1)
      released[#released + 1] = id
    else
      local is_done = verdict == 'done'
      redis.pcall('HSET', job_key(id), 'status', is_done and 'done' or 'failed', is_done and 'result' or 'error', text,
        'started_at', started_at, 'completed_at', completed_at)
      if verdict == 'dead' then
        add_dead_letter(KEYS[4], most_dead, ttl, id, text, completed_at)
      else
        expire_job(id, ttl, ARGV[at + 7])
      end
    end
  end
end
for i = #released, 1, -1 do redis.call('LPUSH', KEYS[1], released[i]) end
if #released > 0 then wake(KEYS[5]) end

-- The recent rates are sums that decay exponentially: see RecentRates in protocol.py.
local finished = counts.done + counts.failed + counts.dead
if finished > 0 then
  local now_s = now / 1000
  local fade = math.exp(-math.max(0, now_s - (number(was[3]) or now_s)) / fade_s)
  redis.call('HSET', KEYS[5],
    'recent_jobs', string.format('%.17g', (number(was[1]) or 0) * fade + finished),
    'recent_busy_s', string.format('%.17g', (number(was[2]) or 0) * fade + busy_s),
    'recent_at', string.format('%.3f', now_s),
    'done', digits((count_in(was[4]) or 0) + counts.done),
    'failed', digits((count_in(was[5]) or 0) + counts.failed + counts.dead),
    'dead', digits((count_in(was[6]) or 0) + counts.dead))
end
return reply

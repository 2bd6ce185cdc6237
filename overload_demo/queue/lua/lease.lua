-- Lease jobs from the head of the queue to one worker, after returning the jobs of expired leases. One step: whatever
-- process dies, at any moment, each job is either waiting or leased. Idempotent by lease token: a repeated call returns
-- the same jobs again, so a lost reply does no harm. The first write frees memory (ZREM, LPOP, HDEL), so a full store
-- still drains. A job that was interrupted before (attempts > 0) is leased alone: if it kills its worker, no other job
-- is affected. Cancelled jobs and jobs past their deadline are removed from the list on the way. The deadline of a job
-- that was leased before no longer applies. While the queue is paused nothing is leased.
--
-- KEYS  1 jobs:queue  2 jobs:leases  3 jobs:owners  4 jobs:dead  5 jobs:stats  6 jobs:workers; derived: job:{id} of ids
--       in the list, the leases and the dead letters, and idem:{record} of these jobs
-- ARGV  1 key prefix  2 worker id  3 lease token  4 lease, ms  5 most jobs (0 = only look)  6 most payload bytes
--       7 most attempts  8 now, as stored in started_at  9 ids of dead workers, separated by blanks: their jobs return
--       10 the worker's REST calls so far  11 seconds a finished job is kept  12 most dead letters
--       13 how long the worker may sleep if there are no jobs, ms (0 = it polls)  14 text to publish, '' = none
-- Reply: {fence, jobs waiting, jobs in flight, hint, ms until the first lease ends ('' = none does), created_at of the
--       job now at the head ('' = empty list, '-' = unreadable), then for each job: id, payload, attempt, idempotency
--       record}; the hint explains why there are no jobs: 'paused', 'again' = there may be some further on, '' = none
-- Reading tour 7 of 13; next: overload_demo/queue/lua/settle.lua. Look for the place where expired leases return.
-- Question: why is an interrupted job leased alone?
local worker, token, now_iso = ARGV[2], ARGV[3], ARGV[8]
local lease_ms, most_jobs, most_bytes, most_attempts = argument(4), argument(5), argument(6), argument(7)
local ttl, most_dead, sleep_ms = argument(11), argument(12), argument(13)
local alive_until = digits(now + lease_ms)
local MOST_PASSED_OVER = 200 -- in one call; the hint 'again' requests another
local MOST_TAKEN_BACK = 300 -- in one call; with old dead letters and jobs passed over it touches at most 1,000 jobs
local HEARTBEATS_CHECKED = 100 -- in one call, at random, which removes those of dead workers soon enough
local control = redis.call('HMGET', KEYS[5], 'tombstones', 'paused', 'fence', 'asleep')
local tombstones, is_paused, any_asleep = count_in(control[1]) or 0, control[2] == '1', control[4]
local last_fence = count_in(control[3] or '0') or now -- above any fence counted from 0
local dead_workers, is_dead = {}, {}
for id in string.gmatch(ARGV[9], '%S+') do dead_workers[#dead_workers + 1], is_dead[id] = id, true end
local function job(id) return job_fields(id, 'status', 'payload', 'attempts', 'idem', 'seq', 'start_by') end
local function is_late(start_by) return start_by and now > (count_in(string.match(start_by, '^%d+')) or now) end
local function each_owner(visit) -- with id, fence, worker, token, place in the batch; in no order, if there are many
  local owners = redis.call('HGETALL', KEYS[3])
  for i = 1, #owners, 2 do visit(owners[i], string.match(owners[i + 1], '^(%d+) (%S+) (%S+) ?(%d*)$')) end
end

local function fail(id, reason)
  redis.pcall('HSET', job_key(id), 'status', 'failed', 'error', reason, 'completed_at', now_iso) -- may be no hash
  add_dead_letter(KEYS[4], most_dead, ttl, id, reason, now_iso)
  add(KEYS[5], 'dead', 1, 'failed', 1)
end

-- Store this worker's heartbeat, and remove expired ones: every reader walks through all of them.
local function finish(fence, jobs)
  local signs = redis.call('HRANDFIELD', KEYS[6], HEARTBEATS_CHECKED, 'WITHVALUES')
  for i = 1, #signs, 2 do
    if tonumber(string.match(signs[i + 1], '^%d+') or '0') < now then dead_workers[#dead_workers + 1] = signs[i] end
  end
  local entries, in_flight = redis.call('LLEN', KEYS[1]), redis.call('ZCARD', KEYS[2])
  local waiting, hint, first_end = math.max(0, entries - tombstones), '', ''
  if is_paused then hint = 'paused' elseif #jobs == 0 and entries > 0 then hint = 'again' end
  redis.call('HDEL', KEYS[6], '', unpack(dead_workers)) -- frees memory, if this is the first write
  if #jobs == 0 and hint ~= 'again' then
    alive_until = digits(now + lease_ms + sleep_ms)
    if in_flight > 0 then first_end = digits(redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] - now) end
    -- The same step has found no jobs: any script that adds one later finds the mark. A resume wakes without it.
    if sleep_ms > 0 and not (any_asleep or is_paused) then redis.call('HSET', KEYS[5], 'asleep', 1) end
  end
  redis.call('HSET', KEYS[6], worker, alive_until .. ' ' .. token .. ' ' .. ARGV[10])
  if any_asleep and waiting > 0 and not is_paused then wake(KEYS[5]) end
  if ARGV[14] ~= '' then redis.pcall('PUBLISH', prefix .. 'jobs:wake', ARGV[14]) end
  local head = entries > 0 and (job_fields(redis.call('LINDEX', KEYS[1], 0), 'created_at')[1] or '-') or ''
  local reply = { fence, waiting, in_flight, hint, first_end, head }
  for _, entry in ipairs(jobs) do
    for i = 1, 4 do reply[#reply + 1] = entry[i] end
  end
  return reply
end

-- A repeated call gets the same reply.
local sign = redis.call('HGET', KEYS[6], worker)
if sign and string.match(sign, '^%d+ (%S+)') == token then
  local fence, again = '0', {}
  each_owner(function(id, its_fence, holder, its_token, place)
    if holder == worker and its_token == token then
      local fields = job(id)
      local attempt = digits(count_in(fields[3]) or 1)
      fence = its_fence
      again[#again + 1] = { id, fields[2] or '', attempt, fields[4] or '', tonumber(place) or 0 }
    end
  end)
  table.sort(again, function(a, b) return a[5] < b[5] end)
  return finish(fence, again)
end

-- Jobs with expired leases, and those of dead workers: back to the head in their old order, or to the dead letters.
redis.call('HLEN', KEYS[3])
local back = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, MOST_TAKEN_BACK)
if #dead_workers > 0 then
  each_owner(function(id, _, holder)
    if holder and is_dead[holder] and #back < MOST_TAKEN_BACK then back[#back + 1] = id end
  end)
end
if #back > 0 then
  redis.call('LLEN', KEYS[1])
  redis.call('LLEN', KEYS[4])
  redis.call('ZREM', KEYS[2], unpack(back))
  redis.call('HDEL', KEYS[3], unpack(back))
  local again = {}
  for _, id in ipairs(back) do
    local fields = job(id) -- of a second entry of the same job: no longer processing
    local attempts = count_in(fields[3]) or 1
    if fields[1] == 'processing' and attempts >= most_attempts then
      fail(id, 'interrupted ' .. attempts .. ' times: the worker died or the job ran too long')
    elseif fields[1] == 'processing' then
      redis.call('HSET', job_key(id), 'status', 'queued')
      again[#again + 1] = { id, count_in(fields[5]) or 0 }
    end
  end
  table.sort(again, function(a, b) return a[2] > b[2] end)
  for _, entry in ipairs(again) do redis.call('LPUSH', KEYS[1], entry[1]) end
  add(KEYS[5], 'interrupted', #again)
end

-- Choose from the head, by count and by bytes: at least one job, if necessary from behind those passed over.
local chosen, unreadable, passed_over, seen, bytes, looked_at = {}, {}, {}, {}, 0, 0
local has_moved_on = { processing = true, done = true, failed = true }
repeat
  local taken, most = 0, math.min(most_jobs, MOST_PASSED_OVER - looked_at)
  local ids = (is_paused or most_jobs == 0) and {} or redis.call('LRANGE', KEYS[1], 0, most - 1)
  for _, id in ipairs(ids) do
    local fields = job(id)
    local status, payload, attempts = fields[1], fields[2] or '', count_in(fields[3]) or 0
    if #chosen > 0 and (attempts > 0 or bytes + #payload > most_bytes) then break end
    taken = taken + 1
    if seen[id] then -- a second entry of the same job: dropped
    elseif status == 'cancelled' or (status == 'queued' and attempts == 0 and is_late(fields[6])) then
      passed_over[#passed_over + 1] = { id, fields }
    elseif status == 'queued' then
      chosen[#chosen + 1] = { id, payload, digits(attempts + 1), fields[4] or '' }
      bytes = bytes + #payload
      if attempts > 0 then break end
    elseif not has_moved_on[status or ''] then -- else a second entry of a job that has moved on: dropped
      unreadable[#unreadable + 1] = { id, status and 'its state is none' or 'no job data under its key' }
    end
    seen[id] = true
  end
  if #unreadable > 0 then redis.call('LLEN', KEYS[4]) end
  if taken > 0 then redis.call('LPOP', KEYS[1], taken) end
  looked_at = looked_at + taken
until #chosen > 0 or #ids == 0 or looked_at >= MOST_PASSED_OVER
for _, entry in ipairs(unreadable) do fail(entry[1], 'unreadable: ' .. entry[2]) end

-- Jobs passed over are finished now, and expire like any other finished job.
local removed, expired = 0, 0
for _, entry in ipairs(passed_over) do
  local id, fields = entry[1], entry[2]
  if fields[1] == 'cancelled' then
    removed = removed + redis.call('HDEL', job_key(id), 'seq') -- 0 for a second entry of the same job
  else
    expired = expired + 1
    redis.call('HSET', job_key(id), 'status', 'failed', 'completed_at', now_iso,
      'error', 'expired: not started within ' .. (string.match(fields[6], ' (%S+)') or '?') .. ' s')
  end
  expire_job(id, ttl, fields[4])
end
tombstones = tombstones - removed
add(KEYS[5], 'tombstones', -removed, 'expired', expired, 'failed', expired)

local fence = '0'
if #chosen > 0 then
  fence = digits(last_fence + 1)
  redis.call('HSET', KEYS[5], 'fence', fence)
  local leases, owners = {}, {}
  for i, entry in ipairs(chosen) do
    redis.call('HSET', job_key(entry[1]), 'status', 'processing', 'started_at', now_iso,
      'attempts', entry[3], 'fence', fence)
    leases[2 * i - 1], leases[2 * i] = alive_until, entry[1]
    owners[2 * i - 1], owners[2 * i] = entry[1], fence .. ' ' .. worker .. ' ' .. token .. ' ' .. i
  end
  redis.call('ZADD', KEYS[2], unpack(leases))
  redis.call('HSET', KEYS[3], unpack(owners))
end
return finish(fence, chosen)

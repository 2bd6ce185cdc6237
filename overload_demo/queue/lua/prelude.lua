-- What every script begins with. Arguments are checked before the first write: a script that stopped between its writes
-- would leave jobs in no place and in no counter.
local MOST = 1e12 -- of any argument: seconds and milliseconds added to now stay within what EXPIRE takes

local function number(text) -- nil for what is none, or not finite
  local value = tonumber(text or '')
  return value and value == value and math.abs(value) ~= math.huge and value or nil
end

local function count_in(text) -- nil for what is no whole number
  local value = string.match(text or '', '^%d+$') and tonumber(text)
  return value and value < 1e15 and value or nil
end

local function argument(at) -- a number that the caller gives
  local value = number(ARGV[at])
  if not value or value < 0 or value > MOST then error('argument ' .. at .. ' is no number in range') end
  return value
end

local function whole(at) -- the same, a whole number
  local value = argument(at)
  if value ~= math.floor(value) then error('argument ' .. at .. ' is no whole number') end
  return value
end

local function add(key, counter, count) -- a counter that holds something else begins anew
  if type(redis.pcall('HINCRBY', key, counter, count)) ~= 'number' then
    redis.call('HSET', key, counter, count)
  end
end

local function last_sequence(list, counter, prefix) -- of the job enqueued last; where the counter is none, by its hash
  local last_seq = count_in(redis.call('GET', counter) or '0')
  local last = not last_seq and redis.call('LINDEX', list, -1)
  local its_seq = last and redis.pcall('HGET', prefix .. 'job:' .. last, 'seq')
  return last_seq or (type(its_seq) == 'string' and count_in(its_seq)) or 0
end


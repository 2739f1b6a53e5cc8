-- Who is where in the line, by counting: in a long line a rank is dear.
--
-- Numbers are given in a row, and those that left are known: each number beyond `front` is either
-- in the line or in the gaps. So a position is its number, less the front, less the gaps before it,
-- and as many more as came back with a number up to the front; these few are found by rank.
-- The front moves on into the gaps by some at a time, so that a gap costs O(log n) once. Where the
-- front is not known, all are found by rank. It is known from the first who joins an empty line: see
-- join.lua.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       gaps       sorted set  sequence number -> itself, of those beyond the front that left
--       state      hash        front, seq

local front

local function move_into_gaps()
  -- Mostly there is none in front, but many further behind.
  if tonumber(redis.call('ZRANGE', gaps, 0, 0)[1]) ~= front + 1 then return 0 end
  local closed = 0
  for _, seq in ipairs(redis.call('ZRANGE', gaps, 0, 63)) do
    if tonumber(seq) ~= front + 1 then break end
    front, closed = front + 1, closed + 1
  end
  redis.call('ZREMRANGEBYRANK', gaps, 0, closed - 1)
  return closed
end

-- By how much the front moves, now that this number has left.
local function close_up(seq)
  local moved = 0
  if not front then
    front = tonumber(redis.call('HGET', state, 'front') or math.huge)
    moved = move_into_gaps()
  end
  if seq == front + 1 then
    front, moved = seq, moved + 1
  elseif seq > front then
    redis.call('ZADD', gaps, seq, seq)
  end
  return moved
end

-- Whether all numbers beyond the front are accounted for, if it is known.
local function front_adds_up()
  local known = redis.call('HMGET', state, 'front', 'seq')
  if not known[1] then return true end
  local waiting = redis.call('ZCOUNT', positions, '(' .. known[1], '+inf')
  return known[1] + waiting + redis.call('ZCARD', gaps) == tonumber(known[2])
end

local function forget_front()
  redis.call('HDEL', state, 'front')
  redis.call('UNLINK', gaps)
end

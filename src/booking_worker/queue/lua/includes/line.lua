-- The line of one event: who waits, in which order.
--
-- The sorted set is the truth. The list is the record of arrivals: ids that left the line from
-- the middle stay in it until they come up at its head. Whoever leaves drops up to two of these,
-- so each costs O(1) once, and the list is about as long as what joined since its head did.
--
-- KEYS  queue      list        item ids in arrival order
--       positions  sorted set  waiting item id -> sequence number (rank = position)
--
-- @include front
-- @include books

-- Whether it was in the line; `seq` is nil for an entry that should not have been.
local function leave_line(id, seq)
  if redis.call('ZREM', positions, id) == 0 then return false end
  if seq then add('front', close_up(seq)) end
  for _ = 1, 2 do
    local head = redis.call('LINDEX', queue, 0)
    if not head or redis.call('ZSCORE', positions, head) then break end
    redis.call('LPOP', queue)
  end
  return true
end

local function return_to_line(id, seq)
  redis.call('ZADD', positions, seq, id)
  redis.call('ZREM', gaps, seq)
  redis.call('LPUSH', queue, id)
end

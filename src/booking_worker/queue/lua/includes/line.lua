-- The line of one event: who waits, in which order.
--
-- The sorted set is the truth. The list is the record of arrivals: ids that left the line from
-- the middle are dropped from it when they come up at its head, so each costs O(1) once.
--
-- KEYS  queue      list        item ids in arrival order
--       positions  sorted set  waiting item id -> sequence number (rank = position)

local function leave_line(id)
  redis.call('ZREM', positions, id)
end

-- Drop ids from the head of the list that wait no more, at most `most` of them.
local function trim_queue(most)
  for _ = 1, most do
    local head = redis.call('LINDEX', queue, 0)
    if not head or redis.call('ZSCORE', positions, head) then return end
    redis.call('LPOP', queue)
  end
end

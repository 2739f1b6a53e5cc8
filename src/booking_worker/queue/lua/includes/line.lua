-- The line of one event: who waits, in which order.
--
-- The sorted set is the truth. The list is the record of arrivals: ids that left the line from
-- the middle stay in it until they come up at its head. Whoever leaves drops up to two of these,
-- so each costs O(1) once, and the list is about as long as what joined since its head did.
--
-- KEYS  queue      list        item ids in arrival order
--       positions  sorted set  waiting item id -> sequence number (rank = position)

local function leave_line(id)
  if redis.call('ZREM', positions, id) == 0 then return end
  for _ = 1, 2 do
    local head = redis.call('LINDEX', queue, 0)
    if not head or redis.call('ZSCORE', positions, head) then return end
    redis.call('LPOP', queue)
  end
end

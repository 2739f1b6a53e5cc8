-- A repeat changes nothing, but is acknowledged as the first was: WAIT waits for what was written over
-- its own connection, and would ask nobody where nothing was.
--
-- KEYS  state  hash  counters and capacity of the event

local function repeated()
  redis.call('HINCRBY', state, 'repeats', 1)
end

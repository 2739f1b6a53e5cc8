-- What a refresh must know from before it asks the Ticket Service.
--
-- RETURNS settled_seats, moves, refreshes, which engine this is, which one the books were refreshed
--         under last (empty: none), and the id of the first item ever (empty: nobody joined yet)
--
-- @include books
-- @include engine

local event = redis.call('HMGET', state, 'settled_seats', 'moves', 'refreshes', 'epoch', 'born')
for at = 1, 3 do event[at] = tonumber(event[at] or 0) end
return { event[1], event[2], event[3], engine(), event[4] or '', event[5] or '' }

-- What a refresh must know from before it asks the Ticket Service.
--
-- RETURNS settled_seats, moves
--
-- @include books

local counts = redis.call('HMGET', state, 'settled_seats', 'moves')
return { tonumber(counts[1] or 0), tonumber(counts[2] or 0) }

-- What a refresh must know from before it asks the Ticket Service.
--
-- RETURNS settled_seats, moves, which engine this is, which one the books were refreshed under last
--         (empty: none), and the id of the first item ever (empty: nobody joined yet)
--
-- @include books
-- @include engine

local event = redis.call('HMGET', state, 'settled_seats', 'moves', 'epoch', 'born')
return {
  tonumber(event[1] or 0), tonumber(event[2] or 0), engine(), event[3] or '', event[4] or '',
}

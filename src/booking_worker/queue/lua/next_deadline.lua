-- How long it is until a deadline of one event passes; reads only.
--
-- Each event that is alive is asked for once a second by each replica, so this is small.
--
-- KEYS  timeouts  sorted set  item id -> deadline, ms
-- RETURNS milliseconds until the next deadline, negative once it has passed; false: there is none
--
-- @include now

local first = redis.call('ZRANGE', timeouts, 0, 0, 'WITHSCORES')
return first[2] and first[2] - now

-- The events that may be over: none of them was listed for longer than its results are kept.
--
-- Never less than ten minutes: whoever joins lists the event at most a minute before, so
-- an event that was found to be over, and is joined now, has been listed anew since.
--
-- KEYS  events  sorted set  event id -> when it was listed last, seconds
-- ARGV  result_ttl_ms  int
-- RETURNS for each: event id, when it was listed last
--
-- @include now

local before = (now - math.max(result_ttl_ms, 600000)) / 1000
return redis.call('ZRANGEBYSCORE', events, '-inf', before, 'WITHSCORES')

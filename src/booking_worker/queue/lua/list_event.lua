-- List an event among those that have a line, or say that it still has one.
--
-- KEYS  events  sorted set  event id -> when it was listed last, seconds
-- ARGV  event_id
-- RETURNS 1
--
-- @include now

redis.call('ZADD', events, math.floor(now / 1000), event_id)
return 1

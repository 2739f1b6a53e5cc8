-- Admit again, to one event or to all of those that are not paused by themselves.
--
-- KEYS  gate  hash  the event's counters, or the layout's record for all events
-- RETURNS why nobody was admitted; empty when they were
--
-- @include wake

local before = redis.call('HGET', gate, 'paused')
redis.call('HDEL', gate, 'paused', 'paused_by', 'paused_at')
wake()
return before or ''

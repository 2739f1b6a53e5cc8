-- Admit nobody from now on, to one event or to any; who is past the line goes on.
--
-- KEYS  gate    hash  the event's counters, or the layout's record for all events
-- ARGV  reason
--       actor
-- RETURNS why nobody was admitted before; empty when they were
--
-- @include now

local before = redis.call('HGET', gate, 'paused')
redis.call('HSET', gate, 'paused', reason, 'paused_by', actor, 'paused_at', now)
return before or ''

-- Take an event that is over off the list, unless it was listed anew since it was looked at.
--
-- KEYS  events  sorted set  event id -> when it was listed last, seconds
-- ARGV  event_id
--       listed_at  int  when it was listed last, as it was looked at
-- RETURNS 1 when it was taken off, else 0

if tonumber(redis.call('ZSCORE', events, event_id)) ~= listed_at then return 0 end
return redis.call('ZREM', events, event_id)

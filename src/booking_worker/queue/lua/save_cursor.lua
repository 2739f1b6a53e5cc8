-- Remember up to which change people were told, and let go of what was told long ago.
--
-- Only the latest holder of the event's lock may: an earlier one that was stopped, and goes on,
-- would have changes told twice, or never.
--
-- KEYS  state    hash    fence: the token of the latest holder
--       changes  stream  status changes of the event
-- ARGV  token        int
--       cursor       id of an entry of the stream
--       oldest_kept  id before which entries are no longer needed
-- RETURNS 1; 0 when another holder has taken over, and nothing was changed

if tonumber(redis.call('HGET', state, 'fence') or 0) ~= token then return 0 end
redis.call('HSET', state, 'cursor', cursor)
redis.call('XTRIM', changes, 'MINID', '~', oldest_kept)
return 1

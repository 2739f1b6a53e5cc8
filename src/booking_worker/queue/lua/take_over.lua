-- Take over the housekeeping of an event: from now on no earlier holder's word counts.
--
-- KEYS  state  hash  fence: the token of the latest holder; cursor: the last change told
-- RETURNS token, cursor ('': nobody was told of anything yet)

return { redis.call('HINCRBY', state, 'fence', 1), redis.call('HGET', state, 'cursor') or '' }

-- Take over the housekeeping of an event: from now on no earlier holder's word counts.
--
-- KEYS  state  hash  fence: the token of the latest holder; cursor: the last change told
-- RETURNS token, cursor ('': nobody was told of anything yet)
--
-- @include token

local event = redis.call('HMGET', state, 'fence', 'fence_engine', 'born_in', 'cursor')
local token = last_token(event[1], event[2] or event[3]) + 1
gave('fence', token)
return { token, event[4] or '' }

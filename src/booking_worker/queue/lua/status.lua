-- The books of one event; reads only.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       items      hash        item id -> record
--       dead       sorted set  dead letters
--       state      hash        counters of the event
-- RETURNS now, waiting, dead letters, when the head joined and how many seats it asks for (0 and 0:
--         nobody waits), 1 when the engine is the one that capacity was refreshed under, then the
--         fields of `state`
--
-- @include now
-- @include engine

local head = redis.call('ZRANGE', positions, 0, 0)[1]
local record = head and redis.call('HGET', items, head)
local seats, joined_at = 0, 0
if record then
  local _
  _, _, _, seats, _, joined_at = cmsgpack.unpack_limit(record, 5, 0)
end
local current = redis.call('HGET', state, 'epoch') == engine()
return {
  now, redis.call('ZCARD', positions), redis.call('ZCARD', dead), joined_at, seats,
  current and 1 or 0, redis.call('HGETALL', state),
}

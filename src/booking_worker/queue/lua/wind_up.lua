-- Drop what an event that is over needs no more, if it is: nobody is in line, admitted or a dead
-- letter, and its last change is told everywhere and older than its results.
--
-- The books stay, and the last entry of the feed: numbers and change ids go on growing if somebody
-- joins again.
--
-- KEYS  items    hash        item id -> record; live items and dead letters
--       queue    list        item ids in arrival order: those left over here have all gone
--       gaps     sorted set  numbers of those who left from the middle: so have these
--       changes  stream      status changes of the event
--       state    hash        `cursor`: up to where the feed was read; `front`, see front.lua
-- ARGV  result_ttl_ms  int
-- RETURNS 1 when it is over, else 0
--
-- @include now

if redis.call('HLEN', items) > 0 then return 0 end
local last = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
if last then
  local at = last[2][2]
  local read = redis.call('HGET', state, 'cursor') == last[1]
  if not read or at + result_ttl_ms > now then return 0 end
  redis.call('XTRIM', changes, 'MAXLEN', 1)
end
redis.call('DEL', queue, gaps)
redis.call('HDEL', state, 'front')
return 1

-- Say that a worker lives, and hear how many slots live over all of them.
--
-- KEYS  workers    hash  worker id -> slots and until when, ms
-- ARGV  worker_id
--       slots      int   0: it is leaving
--       ttl_ms     int
-- RETURNS slots of all live workers
--
-- @include now

if slots > 0 then
  redis.call('HSET', workers, worker_id, slots .. ' ' .. string.format('%.0f', now + ttl_ms))
else
  redis.call('HDEL', workers, worker_id)
end
local live = 0
local all = redis.call('HGETALL', workers)
for at = 1, #all, 2 do
  local count, until_ms = string.match(all[at + 1], '(%d+) (%d+)')
  until_ms = tonumber(until_ms)
  -- Further away than a beat reaches: the clock was set back, and the dead would live for long.
  if until_ms > now and until_ms <= now + ttl_ms then
    live = live + count
  else
    redis.call('HDEL', workers, all[at])
  end
end
return live

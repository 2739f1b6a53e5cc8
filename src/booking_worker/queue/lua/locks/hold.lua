-- Take the lock of an event on one lock node for `ttl_ms`, or keep it for as long again.
--
-- KEYS  lock    string  who holds it
-- ARGV  owner   a random word
--       ttl_ms  int
-- RETURNS 1 when it is the owner's for ttl_ms from now; else the milliseconds until it lapses,
--         unless its holder keeps it, times -1

local holder = redis.call('GET', lock)
if not holder or holder == owner then
  redis.call('SET', lock, owner, 'PX', ttl_ms)
  return 1
end
local left = redis.call('PTTL', lock)
-- The node's clock was set back: without this nobody could have the lock until it is there again.
if left > ttl_ms then
  redis.call('PEXPIRE', lock, ttl_ms)
  left = ttl_ms
end
return -left

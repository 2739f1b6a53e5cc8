-- Keep a lease for another lease_ms from now.
--
-- ARGV  lease_ms  int
-- RETURNS until_ms
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item then return FENCED end
redis.call('ZADD', timeouts, now + lease_ms, item_id)
return now + lease_ms

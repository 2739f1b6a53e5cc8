-- A task failed for now: again after backoff_ms, or a dead letter when it failed too often.
--
-- The item keeps its seats: whether the call took effect is not known.
--
-- ARGV  backoff_ms   int
--       max_retries  int
--       why
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease
-- @include dead_letter

local item = leased_item()
if not item then return FENCED end
item.more.attempts = (item.more.attempts or 0) + 1
if item.more.attempts > max_retries then
  to_dead_letter(item_id, item, why)
else
  item.more.token = nil
  redis.call('ZADD', timeouts, now + backoff_ms, item_id)
  save(item_id, item)
end
commit()
return item.status

-- A task failed for now: again after backoff_ms, or a dead letter when it failed too often. It
-- uses up no attempt when it only waits for a service that is away.
--
-- The item keeps its seats: whether the call took effect is not known.
--
-- ARGV  backoff_ms   int
--       uses_up      int  1 when it uses up an attempt
--       max_retries  int
--       why
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease
-- @include dead_letter

local item = leased_item()
if not item then return FENCED end
if uses_up == 1 then
  item.more.attempts = (item.more.attempts or 0) + 1
else
  item.more.asked = 1
end
if uses_up == 1 and item.more.attempts > max_retries then
  to_dead_letter(item_id, item, why)
else
  item.more.token = nil
  redis.call('ZADD', timeouts, now + backoff_ms, item_id)
  save(item_id, item)
end
commit()
return item.status

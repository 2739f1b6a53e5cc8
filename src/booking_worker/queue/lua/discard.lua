-- Let a dead letter go for good: it stays readable as `failed` for result_ttl_ms.
--
-- ARGV  item_id
-- RETURNS status
-- ERRORS  NOT_FOUND WRONG_STATUS
--
-- @include item

local item = live_item(item_id)
if not item then return { err = any_item(item_id) and 'WRONG_STATUS final' or 'NOT_FOUND' } end
if item.status ~= 'failed' then return { err = 'WRONG_STATUS ' .. item.status } end
redis.call('ZREM', dead, item_id)
add('failed', -1)
finish(item_id, item, 'failed', item.more.message)
-- No change is told: it was failed, and it is. Who discards it writes that down.
commit_books()
return item.status

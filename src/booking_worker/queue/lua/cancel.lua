-- Give a place back: at once while waiting, after the release of its booking when one is held.
--
-- While a reserve is under way the item is only marked: a booking that comes back is released.
-- Cancelling what is cancelled is cancelling.
--
-- ARGV  item_id
--       user_id  empty: an operator, for whoever owns it
--       reason
-- RETURNS status
-- ERRORS  NOT_FOUND NOT_YOURS WRONG_STATUS
--
-- @include task
-- @include repeated

local item = any_item(item_id)
if not item then return { err = 'NOT_FOUND' } end
if user_id ~= '' and item.user_id ~= user_id then return { err = 'NOT_YOURS' } end

if item.status == 'waiting' then
  finish(item_id, item, 'cancelled', reason)
elseif item.status == 'processing' then
  item.more.cancel = item.more.cancel or reason
  save(item_id, item)
elseif item.status == 'awaiting_payment' then
  begin_release(item_id, item, 'cancelled', reason)
  save(item_id, item)
elseif item.status == 'releasing' then
  if item.more.target ~= 'cancelled' then return { err = 'WRONG_STATUS expired' } end
  repeated()
elseif item.status == 'cancelled' then
  repeated()
else
  return { err = 'WRONG_STATUS ' .. item.status }
end
commit()
return item.status

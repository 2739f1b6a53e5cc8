-- The booking no longer exists: the hold is over. Where its seats are only a refresh knows.
--
-- ARGV  message  for the user
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status == 'processing' then return FENCED end
leave_held(item, nil)
finish(item_id, item, item.more.target or 'expired', message)
wake()
commit()
return item.status

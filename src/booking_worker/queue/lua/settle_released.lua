-- The booking was cancelled: its seats go to the next in line.
--
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'releasing' then return FENCED end
leave_held(item, 'capacity')
finish(item_id, item, item.more.target, item.more.reason)
wake()
commit()
return item.status

-- The booking was cancelled: its seats go to the next in line.
--
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'releasing' then return FENCED end
-- A refresh may have counted the seats of a dead letter as left already.
leave_held(item, not item.more.written_off and 'capacity' or nil)
finish(item_id, item, item.more.target, item.more.reason)
wake()
commit()
return item.status

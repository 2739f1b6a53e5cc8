-- The Booking Service refused a reserve for good; its seats go to the next in line.
--
-- ARGV  message  for the user
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'processing' then return FENCED end
leave_processing(item, 'capacity')
if item.more.cancel then
  finish(item_id, item, 'cancelled', item.more.cancel)
else
  finish(item_id, item, 'rejected', message)
end
wake()
commit()
return item.status

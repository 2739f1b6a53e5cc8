-- A reserve was refused since the tickets ran out: nobody's choice was wrong, so the item goes
-- back to its place. Its seats are written off until the next refresh of capacity.
--
-- ARGV  message
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease
-- @include rate

local item = leased_item()
if not item or item.status ~= 'processing' then return FENCED end
leave_processing(item, nil)
count_admissions(-1)
if item.more.cancel then
  finish(item_id, item, 'cancelled', item.more.cancel)
else
  item.more.attempts = nil
  item.more.crashes = nil
  back_to_line(item_id, item, message)
  save(item_id, item)
end
commit()
return item.status

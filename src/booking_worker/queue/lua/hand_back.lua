-- Give a leased task back unfinished, at once; it uses up no attempt.
--
-- A reserve that the Booking Service was never asked for goes back to its place in the line;
-- otherwise a booking may exist: the task is ready for the next worker and keeps its seats.
--
-- ARGV  asked  int  1 when a service may have seen the call
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item then return FENCED end
local more = item.more
local untouched = asked == 0
  and not (more.asked or more.attempts or more.crashes or more.cancel)
if item.status == 'processing' and untouched then
  leave_processing(item, 'capacity')
  add('admitted', -1)
  back_to_line(item_id, item, 'handed back')
else
  more.asked = 1
  make_ready(item_id, item)
end
save(item_id, item)
commit()
return item.status

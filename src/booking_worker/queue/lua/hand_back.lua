-- Give a leased task back unfinished, at once; it uses up no attempt.
--
-- A reserve that the Booking Service was never asked for goes back to its place in the line (or
-- is cancelled, if that was asked for); otherwise a booking may exist: the task is ready for the
-- next worker and keeps its seats.
--
-- ARGV  asked  int  1 when a service may have seen the call
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease
-- @include rate

local item = leased_item()
if not item then return FENCED end
local more = item.more
local untouched = item.status == 'processing' and asked == 0
  and not (more.asked or more.attempts or more.crashes)
if untouched then
  leave_processing(item, 'capacity')
  count_admissions(-1)
else
  more.asked = 1
  make_ready(item_id, item)
end
if untouched and more.cancel then
  finish(item_id, item, 'cancelled', more.cancel)
  wake()
else
  if untouched then back_to_line(item_id, item, 'handed back') end
  save(item_id, item)
end
commit()
return item.status

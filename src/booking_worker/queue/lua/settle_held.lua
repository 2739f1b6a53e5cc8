-- A reserve came back with a booking: the item holds it until it is paid or its time is up.
--
-- ARGV  booking_id
--       booking_reference
--       reservation_id
--       hold_ms             int  how long the hold lasts from now
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'processing' then return FENCED end
local more = item.more
more.booking_id = booking_id
if booking_reference ~= '' then more.booking_reference = booking_reference end
if reservation_id ~= '' then more.reservation_id = reservation_id end
more.attempts = nil
more.crashes = nil
more.token = nil
add('processing', -1)
add('settled_seats', item.seats)
enter_held(item, 'processing_seats')
if more.cancel then
  begin_release(item_id, item, 'cancelled', more.cancel)
else
  more.pay_by = now + hold_ms
  item.status = 'awaiting_payment'
  redis.call('ZADD', timeouts, more.pay_by, item_id)
  change(item_id, item, 'processing', 'tickets held')
end
save(item_id, item)
commit()
return item.status

-- The Booking Service confirmed the booking.
--
-- ARGV  booking_reference
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'confirming' then return FENCED end
complete(item_id, item, booking_reference, 'paid')
commit()
return item.status

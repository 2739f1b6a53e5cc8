-- Before its release the booking was found confirmed: nothing is taken away.
--
-- ARGV  booking_reference
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'releasing' then return FENCED end
complete(item_id, item, booking_reference, 'paid directly')
commit()
return item.status

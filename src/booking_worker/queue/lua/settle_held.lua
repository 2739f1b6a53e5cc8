-- Reserves came back with bookings: each item holds its own until it is paid or its time is up.
-- Many at once, as they come by the hundred while a line is worked off.
--
-- ARGV  holds  msgpack: an array of
--              [item_id, token, booking_id, booking_reference, reservation_id, hold_ms], the last
--              being how long the hold lasts from now
-- RETURNS for each its status now, or the name of an error
-- ERRORS  FENCED
--
-- @include fence

local function settle(id, token, booking_id, booking_reference, reservation_id, hold_ms)
  local item = leased(id, token)
  if not item or item.status ~= 'processing' then return 'FENCED' end
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
    begin_release(id, item, 'cancelled', more.cancel)
  else
    more.pay_by = now + hold_ms
    item.status = 'awaiting_payment'
    redis.call('ZADD', timeouts, more.pay_by, id)
    change(id, item, 'processing', 'tickets held')
  end
  save(id, item)
  return item.status
end

local answers = {}
for at, hold in ipairs(cmsgpack.unpack(holds)) do answers[at] = settle(unpack(hold)) end
commit()
return answers

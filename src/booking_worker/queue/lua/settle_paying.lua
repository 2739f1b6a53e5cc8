-- Before its release the booking's payment was found in progress: the deadline moves, once.
--
-- ARGV  payment_grace_ms  int
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'releasing' or item.more.grace_used then return FENCED end
local more = item.more
add('releasing_seats', -item.seats)
item.status = 'awaiting_payment'
more.grace_used = 1
more.pay_by = now + payment_grace_ms
more.token = nil
more.target = nil
more.cancel = nil
more.reason = nil
more.attempts = nil
redis.call('ZADD', timeouts, more.pay_by, item_id)
change(item_id, item, 'releasing', 'a payment is in progress')
save(item_id, item)
commit()
return item.status

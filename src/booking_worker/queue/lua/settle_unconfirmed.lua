-- A confirm was refused but the booking is still open: the user may pay until the same deadline.
--
-- ARGV  message  for the user
-- RETURNS status
-- ERRORS  FENCED
--
-- @include lease

local item = leased_item()
if not item or item.status ~= 'confirming' then return FENCED end
item.status = 'awaiting_payment'
item.more.message = message
item.more.payment_reference = nil
item.more.token = nil
item.more.attempts = nil
redis.call('ZADD', timeouts, item.more.pay_by, item_id)
change(item_id, item, 'confirming', message)
save(item_id, item)
commit()
return item.status

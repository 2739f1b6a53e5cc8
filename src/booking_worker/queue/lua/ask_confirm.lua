-- The user has paid: ask for the confirm of the booking that the item holds.
--
-- The hold is over at its deadline, not after it: at that very millisecond expiry has won.
-- Asking again, with whatever reference, changes nothing: the first payment counts.
--
-- ARGV  item_id
--       user_id
--       payment_reference
-- RETURNS status
-- ERRORS  NOT_FOUND NOT_YOURS WRONG_STATUS
--
-- @include task
-- @include repeated

local item = any_item(item_id)
if not item then return { err = 'NOT_FOUND' } end
if item.user_id ~= user_id then return { err = 'NOT_YOURS' } end

local more = item.more
if item.status == 'awaiting_payment' and now < more.pay_by then
  item.status = 'confirming'
  more.payment_reference = payment_reference
  more.attempts = nil
  more.crashes = nil
  more.message = nil
  make_ready(item_id, item)
  change(item_id, item, 'awaiting_payment', 'payment announced')
  save(item_id, item)
elseif item.status == 'awaiting_payment' or item.status == 'releasing' then
  return { err = 'WRONG_STATUS ' .. (more.target or 'expired') }
elseif item.status == 'confirming' or item.status == 'completed' then
  repeated()
else
  return { err = 'WRONG_STATUS ' .. item.status }
end
commit()
return item.status

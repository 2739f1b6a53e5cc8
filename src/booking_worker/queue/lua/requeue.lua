-- Put a dead letter back: a reserve at its old place in the line, a confirm or a release to the
-- task that it failed at, with its attempts forgotten.
-- A cancel that was asked for meanwhile is not: its booking, if there is one, is released.
--
-- ARGV  item_id
--       places_per_user  int
-- RETURNS status
-- ERRORS  NOT_FOUND WRONG_STATUS USER_HAS_PLACE
--
-- @include task

local item = live_item(item_id)
if not item then return { err = any_item(item_id) and 'WRONG_STATUS final' or 'NOT_FOUND' } end
if item.status ~= 'failed' then return { err = 'WRONG_STATUS ' .. item.status } end
local places = redis.call('HGET', users, item.user_id) or ''
if select(2, string.gsub(places, '%S+', '')) >= places_per_user then
  return { err = 'USER_HAS_PLACE' }
end

local more = item.more
more.attempts, more.crashes, more.message, more.asked = nil, nil, nil, 1
more.requeued_at = now
redis.call('ZREM', dead, item_id)
take_place(item.user_id, item_id)
add('failed', -1)
if more.task == 'reserve' then
  back_to_line(item_id, item, 'requeued')
else
  item.status = more.task == 'confirm' and 'confirming' or 'releasing'
  enter_held(item, nil)
  more.written_off = 1 -- its seats were, when it died: see settle_released
  if item.status == 'releasing' then add('releasing_seats', item.seats) end
  redis.call('ZADD', admitted, item.seq, item_id)
  make_ready(item_id, item)
  change(item_id, item, 'failed', 'requeued')
end
save(item_id, item)
commit()
return item.status

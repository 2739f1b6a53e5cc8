-- Admit again those who have a booking, but are back in the line: the engine was replaced by one
-- that does not know that they were admitted. Their reserves find the bookings that they have.
--
-- Who was admitted has left nothing for those behind: without this, the line could be told that
-- all is sold, with the ones who have it in it.
--
-- ARGV  ids  each
-- RETURNS how many
--
-- @include task

local again = 0
for at = ids + 1, #ARGV do
  local id = ARGV[at]
  local item = live_item(id)
  if item and item.status == 'waiting' then
    again = again + 1
    reenter_processing(item)
    add('admitted', 1)
    item.status = 'processing'
    item.more.asked = 1
    leave_line(id, item.seq)
    redis.call('ZADD', admitted, item.seq, id)
    make_ready(id, item)
    change(id, item, 'waiting', 'has a booking from before the engine was replaced')
    save(id, item)
  end
end
commit()
return again

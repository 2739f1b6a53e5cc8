-- Tell everybody who still waits that it is sold out, in chunks, while that is certain: nothing
-- left by an exact answer to this very engine, nothing being processed, no hold that could come
-- back; and some seconds after a failover, of which replicas may know more than the engine. While
-- an operator lets nobody be admitted, nobody is sent home either.
--
-- Who is told is told by one change for the whole event, ahead of their own: once for each time that
-- somebody waits in vain, as who comes later has not heard the one before.
--
-- ARGV  limit    int  how many at most in this call
--       goes_on  int  1: the call before told the event, and this one goes on with the same line
-- RETURNS number still waiting, or -1 when it is not sold out
--
-- @include item
-- @include engine

local event = redis.call('HMGET', state,
  'capacity', 'exact', 'unlimited', 'processing', 'held', 'epoch',
  'paused', 'settled_at')
local certain = event[2] == '1' and event[3] ~= '1' and tonumber(event[1] or 0) <= 0
  and tonumber(event[4] or 0) == 0 and tonumber(event[5] or 0) == 0
  and event[6] == engine() and not event[7] and now >= tonumber(event[8] or 0)
if not certain then return -1 end
local waiting = redis.call('ZRANGE', positions, 0, limit - 1)
if #waiting == 0 then return -1 end

redis.call('HSET', state, 'sold_out', 1)
for _, id in ipairs(waiting) do
  local item = live_item(id)
  if item then
    if #made == 0 and goes_on ~= 1 then
      made[1] = { '', '', '', 'sold_out', 'no tickets are left', 0, 0, '', '', 0 }
    end
    finish(id, item, 'sold_out', 'no tickets are left')
  else
    leave_line(id)
  end
end
commit_books()
publish_changes()
return redis.call('ZCARD', positions)

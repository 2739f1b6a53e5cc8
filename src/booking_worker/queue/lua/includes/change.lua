-- What happened, for everyone who follows the event: one entry of the feed per script call.
--
-- An entry has `at` (ms), `by` (who did it) and `c`: msgpack, an array of changes
-- [item_id, user_id, before, after, why, seats, seq, booking_id, booking_reference, pay_by_ms].
-- join.lua puts the same together by itself.
--
-- KEYS  changes  stream  status changes of the event, capped
-- ARGV  actor
--
-- @include now

local made = {}

local function change(id, item, before, why)
  local more = item.more
  made[#made + 1] = {
    id, item.user_id, before, item.status, why, item.seats, item.seq,
    more.booking_id or '', more.booking_reference or '', more.pay_by or 0,
  }
end

local function publish_changes()
  if #made > 0 then
    redis.call('XADD', changes, 'MAXLEN', '~', 100000, '*',
      'at', now, 'by', actor, 'c', cmsgpack.pack(made))
  end
end

-- Wake the idle workers: something of this event can be claimed.
--
-- Lost messages do no harm: workers also look by themselves, once a second.
--
-- ARGV  event_id

local woken = false

local function wake()
  if woken then return end
  woken = true
  redis.call('PUBLISH', 'booking-wake', event_id)
end

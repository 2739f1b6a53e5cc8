-- A clock that the test moves: the key says what time it is, ms; the engine's own time without it.

local now = tonumber(redis.call('GET', 'booking-test-clock')) or (function()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end)()

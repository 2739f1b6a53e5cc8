-- A clock that the test moves: the key says what time it is, ms; the engine's own time without it.
-- In a Cluster a script sees the keys of its own slot only, so there each slot has such a key.

local moved = redis.pcall('GET', 'booking-test-clock')
if type(moved) ~= 'string' then
  local tag = string.match(KEYS[1], '{.*}') or '{' .. KEYS[1] .. '}'
  moved = redis.call('GET', 'booking-test-clock:' .. tag)
end
local now = tonumber(moved) or (function()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end)()

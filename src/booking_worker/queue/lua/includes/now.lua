-- The engine's clock, the only one that counts: milliseconds since the Unix epoch.
--
-- Tests load the same scripts with a now.lua of their own that reads a key.

local function engine_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = engine_clock()

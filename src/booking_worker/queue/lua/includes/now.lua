-- The engine's clock, the only one that counts: milliseconds since the Unix epoch.
--
-- Tests load the same scripts with a now.lua of their own that reads a key.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

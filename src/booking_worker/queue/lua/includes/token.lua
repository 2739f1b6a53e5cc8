-- Fencing tokens: they only ever grow, also where a failover lost that some had been given, the
-- very first too, and where the next one follows, onto an engine that has heard of none of it.
--
-- KEYS  state  hash  for each kind of token: the last one, and which engine gave it
--
-- @include engine
-- @include now

-- More than any engine gives for one event. Up to the year 2163 the tokens stay below 1e14: of
-- larger numbers Lua leaves out digits where it makes a string of them.
local MOST_PER_SECOND = 2 ^ 14
local TOKENS_LOST = 2 ^ 32

-- The token that may have been given last, where `token` is the last one known and `giver` the
-- engine that gave it: the one that the books began in, where none is known.
local function last_token(token, giver)
  token = tonumber(token or 0)
  if giver == engine() then return token end
  -- What others gave began at their clocks as well, so it is behind this engine's by now,
  -- whatever of it is known here. A step beyond the last one known would be the same step twice,
  -- where two engines in a row know the same.
  local clock = math.floor(now / 1000) * MOST_PER_SECOND
  if clock > token then return clock end
  -- This engine's clock is slow.
  return (math.floor(token / TOKENS_LOST) + 1) * TOKENS_LOST
end

local function gave(kind, token)
  redis.call('HSET', state, kind, string.format('%.0f', token), kind .. '_engine', engine())
end

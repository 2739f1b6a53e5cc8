-- Fencing tokens: they only ever grow, also where a failover lost that some had been given.
--
-- KEYS  state  hash  token, token_engine
--
-- @include engine

local TOKENS_LOST = 2 ^ 32

-- The token that may have been given last, from what `state` says; from now on this engine gives
-- them.
local function last_token(token, token_engine)
  token = tonumber(token or 0)
  if token_engine == engine() then return token end
  redis.call('HSET', state, 'token_engine', engine())
  return token_engine and (math.floor(token / TOKENS_LOST) + 1) * TOKENS_LOST or token
end

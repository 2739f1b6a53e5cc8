-- The admission rate as a decaying count: domain/estimate.py reads it, with the same window.
--
-- An admission that is undone is taken back: a breaker's trials serve nobody. Never below nothing,
-- as some of it may have decayed by then.
--
-- KEYS  state  hash  rate_weight, rate_at, rate_since
--
-- @include now

local RATE_WINDOW_MS = 30000

local function count_admissions(number)
  local rate = redis.call('HMGET', state, 'rate_weight', 'rate_at', 'rate_since')
  local weight, at = tonumber(rate[1] or 0), tonumber(rate[2] or now)
  weight = weight * math.exp(-math.max(0, now - at) / RATE_WINDOW_MS)
  weight = math.max(0, weight + number)
  redis.call('HSET', state, 'rate_weight', string.format('%.6f', weight), 'rate_at', now,
    'rate_since', rate[3] or now)
end

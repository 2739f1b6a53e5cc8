-- Whether who wants to join has a place already.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       items      hash        item id -> record; live items and dead letters
--       requests   prefix      + user id, line feed, idempotency key: item id
-- ARGV  places_per_user  int
-- ERRORS  IDEMPOTENCY_CONFLICT
--
-- @include record

local function existing(id)
  local rank = redis.call('ZRANK', positions, id)
  if rank then return { id, rank + 1, 'waiting' } end
  local item = any_item(id)
  return item and { id, 0, item.status }
end

-- The place that this idempotency key was given, an error, or nil.
local function by_key(user_id, key, digest)
  local id = redis.call('GET', requests .. user_id .. '\n' .. key)
  local item = id and any_item(id)
  local known = item and item.more.digest
  if not known then return nil end
  if known ~= digest then return 'IDEMPOTENCY_CONFLICT' end
  return existing(id)
end

-- The place that this user has to be content with, or nil and the places that are left.
local function by_user(held)
  local live = {}
  for id in string.gmatch(held, '%S+') do
    if redis.call('HEXISTS', items, id) == 1 then live[#live + 1] = id end
  end
  if #live >= places_per_user then return existing(live[1]), nil end
  return nil, live[1] and table.concat(live, ' ')
end

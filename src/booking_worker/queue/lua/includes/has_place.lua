-- Whether who wants to join has a place already.
--
-- One function, which makes those that it needs: hardly anybody who joins has a place, and a function
-- costs the engine as much as a look into a table.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       items      hash        item id -> record; live items and dead letters
--       results    prefix      + item id: record of a final item, with its expiry
--       requests   prefix      + user id, line feed, idempotency key: item id
-- ARGV  places_per_user  int
-- ERRORS  IDEMPOTENCY_CONFLICT

-- The place that this idempotency key was given, or that this user, who holds these, has to be
-- content with; or the name of an error; or nil, and the places that are left.
local function has_place(user_id, held, key, digest)
  local function status_and_more(id)
    if not id then return nil end
    local packed = redis.call('HGET', items, id) or redis.call('GET', results .. id)
    if not packed then return nil end
    local _, status, _, _, _, _, more = cmsgpack.unpack_limit(packed, 6, 0)
    return status, more
  end

  local function existing(id)
    local rank = redis.call('ZRANK', positions, id)
    if rank then return { id, rank + 1, 'waiting' } end
    local status = status_and_more(id)
    return status and { id, 0, status }
  end

  if key ~= '' then
    local id = redis.call('GET', requests .. user_id .. '\n' .. key)
    local _, more = status_and_more(id)
    local known = more and more.digest
    if known then
      if known ~= digest then return 'IDEMPOTENCY_CONFLICT' end
      return existing(id)
    end
  end
  if not held then return nil end
  local live = {}
  for id in string.gmatch(held, '%S+') do
    if redis.call('HEXISTS', items, id) == 1 then live[#live + 1] = id end
  end
  if #live >= places_per_user then return existing(live[1]), nil end
  return nil, live[1] and table.concat(live, ' ')
end

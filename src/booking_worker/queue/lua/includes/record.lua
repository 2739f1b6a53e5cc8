-- An item's record: reading and writing it.
--
-- A record is seven msgpack values in a row: status, user_id, seats, seq, joined_at_ms, more,
-- details. What changes after the join is in the map `more`, so that a waiting item stays small;
-- details come last, so that a reader of the first values need not unpack them. join.lua puts the
-- first record of an item together by itself.
--
-- KEYS  items    hash    item id -> record; live items and dead letters
--       results  prefix  + item id: record of a final item, with its expiry

local function unpacked(packed)
  local status, user_id, seats, seq, joined_at, more, details = cmsgpack.unpack(packed)
  return {
    status = status, user_id = user_id, seats = seats, seq = seq,
    joined_at = joined_at, more = more, details = details,
  }
end

local function packed_item(item)
  return cmsgpack.pack(
    item.status, item.user_id, item.seats, item.seq, item.joined_at, item.more, item.details)
end

local function live_item(id)
  local packed = redis.call('HGET', items, id)
  return packed and unpacked(packed)
end

-- The item in whatever status, or nil where there is none.
local function any_item(id)
  local packed = redis.call('HGET', items, id) or redis.call('GET', results .. id)
  return packed and unpacked(packed)
end

local function save(id, item)
  redis.call('HSET', items, id, packed_item(item))
end

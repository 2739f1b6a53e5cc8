-- The place of an item's user, and the ends that an item can come to.
--
-- KEYS  users      hash        user id -> ids of the live places, in order, joined by spaces
--       timeouts   sorted set  item id -> deadline of its present status, ms
--       tasks      sorted set  item id -> rank of a task that is ready to be claimed
--       admitted   sorted set  item id -> seq, for items past the line that are not final
--       dead       sorted set  item id -> when it became a dead letter, ms
--       requests   prefix      + user id, line feed, idempotency key: item id
-- ARGV  result_ttl_ms  int
--
-- @include record
-- @include line
-- @include books
-- @include change

local function take_place(user_id, id)
  local places = redis.call('HGET', users, user_id)
  redis.call('HSET', users, user_id, places and places .. ' ' .. id or id)
end

local function drop_place(user_id, id)
  local places = redis.call('HGET', users, user_id)
  if not places then return end
  local others = {}
  for place in string.gmatch(places, '%S+') do
    if place ~= id then others[#others + 1] = place end
  end
  if #others == 0 then
    redis.call('HDEL', users, user_id)
  else
    redis.call('HSET', users, user_id, table.concat(others, ' '))
  end
end

local function leave_all(id, item)
  redis.call('ZREM', timeouts, id)
  -- Who stands in the line is in neither of the others.
  if not leave_line(id, item.seq) then
    redis.call('ZREM', tasks, id)
    redis.call('ZREM', admitted, id)
  end
  drop_place(item.user_id, id)
end

-- Bring an item to a final status; it stays readable for result_ttl_ms.
local function finish(id, item, status, why)
  local before = item.status
  item.status = status
  item.more.message = why
  item.more.token = nil
  leave_all(id, item)
  redis.call('HDEL', items, id)
  redis.call('SET', results .. id, packed_item(item), 'PX', result_ttl_ms)
  if item.more.key then
    redis.call('PEXPIRE', requests .. item.user_id .. '\n' .. item.more.key, result_ttl_ms)
  end
  add(status == 'sold_out' and 'sold_out_items' or status, 1)
  change(id, item, before, why)
end

-- Put an item aside for an operator; it keeps its record and frees its user's place.
local function bury(id, item, why)
  local before = item.status
  item.status = 'failed'
  item.more.message = why
  item.more.token = nil
  leave_all(id, item)
  redis.call('ZADD', dead, now, id)
  save(id, item)
  add('failed', 1)
  change(id, item, before, why)
end

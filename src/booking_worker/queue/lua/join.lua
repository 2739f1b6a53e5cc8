-- Take places in the line of one event, many at once; who has one already is told which.
--
-- KEYS  queue      list        item ids in arrival order
--       positions  sorted set  waiting item id -> sequence number
--       timeouts   sorted set  item id -> deadline, ms
--       users      hash        user id -> ids of the live places, in order, joined by spaces
--       requests   prefix      + user id, line feed, idempotency key: item id
--       state      hash        counters and capacity of the event
-- ARGV  max_size          int
--       places_per_user   int
--       queue_timeout_ms  int
--       joins             msgpack: an array of
--                         [item_id, user_id, seats, details, idempotency_key, digest]
-- RETURNS one answer for each join: its position (a new place), {item_id, position, status} of
--         the place already held, or the name of an error
-- ERRORS  QUEUE_FULL IDEMPOTENCY_CONFLICT
--
-- @include engine
-- @include front
-- @include record
-- @include repeated
-- @include change
-- @include wake

local asked = cmsgpack.unpack(joins)
local user_ids = {}
for at, join in ipairs(asked) do user_ids[at] = join[2] end
local places_of = redis.call('HMGET', users, unpack(user_ids))

local event = redis.call('HMGET', state, 'seq', 'idle')
local seq = tonumber(event[1] or 0)
local waiting = redis.call('ZCARD', positions)
local deadline = now + queue_timeout_ms

local answers, records, ranks, arrivals, deadlines, places = {}, {}, {}, {}, {}, {}
local new_places, new_keys, new_positions, again = {}, {}, {}, false

local function existing(id)
  if new_positions[id] then return { id, new_positions[id], 'waiting' } end
  local rank = redis.call('ZRANK', positions, id)
  if rank then return { id, rank + 1, 'waiting' } end
  local item = any_item(id)
  return item and { id, 0, item.status }
end

-- The place that this idempotency key was given, an error, or nil.
local function by_key(user_id, key, digest)
  local field = user_id .. '\n' .. key
  local id, known = nil, new_keys[field]
  if known then
    id, known = known[1], known[2]
  else
    id = redis.call('GET', requests .. field)
    local item = id and any_item(id)
    known = item and item.more.digest
  end
  if not known then return nil end
  if known ~= digest then return 'IDEMPOTENCY_CONFLICT' end
  return existing(id)
end

-- The place that this user has to be content with, or nil and the places that are left.
local function by_user(held)
  if not held then return nil, nil end
  local live = {}
  for id in string.gmatch(held, '%S+') do
    if new_positions[id] or redis.call('HEXISTS', items, id) == 1 then live[#live + 1] = id end
  end
  if #live >= places_per_user then return existing(live[1]), nil end
  return nil, live[1] and table.concat(live, ' ')
end

for at, join in ipairs(asked) do
  local id, user_id, seats, details, key, digest = unpack(join)
  local answer, held = key ~= '' and by_key(user_id, key, digest), nil
  if not answer then answer, held = by_user(new_places[user_id] or places_of[at]) end
  if answer then
    answers[at], again = answer, again or type(answer) == 'table'
  elseif waiting >= max_size then
    answers[at] = 'QUEUE_FULL'
  else
    seq = seq + 1
    waiting = waiting + 1
    local more = {}
    if key ~= '' then
      more.key, more.digest = key, digest
      redis.call('SET', requests .. user_id .. '\n' .. key, id)
      new_keys[user_id .. '\n' .. key] = { id, digest }
    end
    local n, m = #arrivals + 1, #records + 1
    arrivals[n], records[m] = id, id
    records[m + 1] = cmsgpack.pack('waiting', user_id, seats, seq, now, more, details)
    ranks[m], ranks[m + 1] = seq, id
    deadlines[m], deadlines[m + 1] = deadline, id
    new_places[user_id] = held and held .. ' ' .. id or id
    places[m], places[m + 1] = user_id, new_places[user_id]
    new_positions[id] = waiting
    answers[at] = waiting
    made[n] = { id, user_id, '', 'waiting', 'joined', seats, seq, '', '', 0 }
  end
end

if #arrivals > 0 then
  if waiting == #arrivals then begin_line(seq - waiting) end
  redis.call('HSET', items, unpack(records))
  redis.call('ZADD', positions, unpack(ranks))
  redis.call('ZADD', timeouts, unpack(deadlines))
  redis.call('HSET', users, unpack(places))
  redis.call('RPUSH', queue, unpack(arrivals))
  redis.call('HSET', state, 'seq', seq)
  if not event[1] then redis.call('HSET', state, 'born', arrivals[1], 'born_in', engine()) end
  if event[2] or not event[1] then
    redis.call('HDEL', state, 'idle')
    wake()
  end
  publish_changes()
elseif again then
  repeated()
end
return answers

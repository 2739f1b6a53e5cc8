-- Take places in the line of one event, many at once; who has one already is told which.
--
-- Under load this is most of what the engine does, so it makes few tables and few functions: what
-- it writes is put together from strings. In msgpack '\144' is an empty array, '\154' begins an
-- array of ten, 220 one of as many as the two bytes behind it say, and '\160' + n a string of n.
--
-- KEYS  queue      list        item ids in arrival order
--       positions  sorted set  waiting item id -> sequence number
--       timeouts   sorted set  item id -> deadline, ms
--       users      hash        user id -> ids of the live places, in order, joined by spaces
--       gaps       sorted set  numbers of those who left from the middle
--       changes    stream      status changes of the event, capped
--       state      hash        counters and capacity of the event; `front`, see front.lua
-- ARGV  max_size          int
--       queue_timeout_ms  int
--       joins             msgpack: six values for each join, all in a row: item_id, user_id,
--                         seats, details (as packed in the record), idempotency_key, digest
--       actor
-- RETURNS one answer for each join: its position (a new place), {item_id, position, status} of
--         the place already held, or the name of an error
-- ERRORS  QUEUE_FULL
--
-- @include engine
-- @include has_place
-- @include now
-- @include repeated
-- @include wake

local asked, user_ids = { cmsgpack.unpack(joins) }, {}
for at = 2, #asked, 6 do user_ids[#user_ids + 1] = asked[at] end
local places_of = redis.call('HMGET', users, unpack(user_ids))

local event = redis.call('HMGET', state, 'seq', 'idle')
local seq = tonumber(event[1] or 0)
local waiting = redis.call('ZCARD', positions)
local pack = cmsgpack.pack
local packed_now = pack(now)

-- Of those who are new and not written yet: their ids, and what each of the two HSET takes.
local fresh, ids, records, places = 0, {}, {}, {}
local answers, made, came, again, first = {}, {}, {}, false, nil

local function write()
  if fresh == 0 then return end
  local before = seq - fresh
  if waiting == fresh then
    -- Nobody stood in the line: the next number is the first beyond the front.
    redis.call('HSET', state, 'front', before)
    redis.call('UNLINK', gaps)
  end
  redis.call('HSET', items, unpack(records))
  redis.call('HSET', users, unpack(places))
  redis.call('RPUSH', queue, unpack(ids))
  local scores = records
  for at = 1, fresh do scores[2 * at - 1], scores[2 * at] = before + at, ids[at] end
  redis.call('ZADD', positions, unpack(scores))
  for at = 1, fresh do scores[2 * at - 1] = now + queue_timeout_ms end
  redis.call('ZADD', timeouts, unpack(scores))
end

for at, user_id in ipairs(user_ids) do
  local id, _, seats, details, key, digest = unpack(asked, 6 * at - 5, 6 * at)
  local held, answer = places_of[at], nil
  if came[user_id] then
    write()
    fresh, ids, records, places = 0, {}, {}, {}
    held = redis.call('HGET', users, user_id)
  end
  came[user_id] = true
  if key ~= '' then answer = by_key(user_id, key, digest) end
  if held and not answer then answer, held = by_user(held) end
  if answer then
    answers[at], again = answer, again or type(answer) == 'table'
  elseif waiting >= max_size then
    answers[at] = 'QUEUE_FULL'
  else
    seq, waiting, fresh, first = seq + 1, waiting + 1, fresh + 1, first or id
    local more = '\144'
    if key ~= '' then
      more = pack({ key = key, digest = digest })
      redis.call('SET', requests .. user_id .. '\n' .. key, id)
    end
    local who, numbers = pack(user_id), pack(seats, seq)
    ids[fresh], records[2 * fresh - 1] = id, id
    records[2 * fresh] = '\167waiting' .. who .. numbers .. packed_now .. more .. details
    places[2 * fresh - 1], places[2 * fresh] = user_id, held and held .. ' ' .. id or id
    answers[at] = waiting
    made[#made + 1] = '\154' .. pack(id) .. who .. '\160\167waiting\166joined'
      .. numbers .. '\160\160\0'
  end
end

if first then
  write()
  redis.call('HSET', state, 'seq', seq)
  if not event[1] then redis.call('HSET', state, 'born', first, 'born_in', engine()) end
  if event[2] or not event[1] then
    redis.call('HDEL', state, 'idle')
    wake()
  end
  redis.call('XADD', changes, 'MAXLEN', '~', 100000, '*', 'at', now, 'by', actor,
    'c', struct.pack('>BH', 220, #made) .. table.concat(made))
elseif again then
  repeated()
end
return answers

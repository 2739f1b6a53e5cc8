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
--       joins             msgpack values in a row: how many joins; of all of them the user_ids, the
--                         item_ids, the seats, the details (as packed in the record); where one
--                         has an idempotency key at least, the keys (some empty) and the digests
--       actor
-- RETURNS msgpack: an array with one answer for each join, its position (a new place), [item_id,
--         position, status] of the place already held, or the name of an error
-- ERRORS  QUEUE_FULL
--
-- @include engine
-- @include has_place
-- @include now
-- @include repeated
-- @include wake

-- The value of kind `k` (user_ids 0, item_ids 1, ...) for the join `at` is asked[1 + k * count + at].
local asked = { cmsgpack.unpack(joins) }
local count = asked[1]
local places_of = redis.call('HMGET', users, unpack(asked, 2, 1 + count))

local last_seq = redis.call('HGET', state, 'seq')
local seq = tonumber(last_seq or 0)
local waiting = redis.call('ZCARD', positions)
local was_empty = waiting == 0
local pack = cmsgpack.pack
local packed_now = pack(now)
-- What pack puts before a string so long: before the last id, and before the last user's.
local id_head, id_length, user_head, user_length

-- Tables as long as they may get, whatever stands in them: one that grows is copied again and again.
local answers, made = { unpack(asked, 1, count) }, { unpack(asked, 1, 1 + count) }
-- Of those who are new and not written yet: their ids, and what each of the two HSET takes.
local ids, records = { unpack(asked, 1, count) }, { unpack(asked, 1, 2 * count) }
local places = { unpack(asked, 1, 2 * count) }
local fresh, joined, came, again, first = 0, 0, {}, false, nil

for at = 1, count + 1 do
  local user_id = at <= count and asked[1 + at]
  local came_before = came[user_id]
  if fresh > 0 and (came_before or not user_id) then
    -- All are through, or who comes a second time has to find what the first time wrote.
    local before, values = seq - fresh, 2 * fresh
    if waiting == fresh then
      -- Nobody stood in the line: the next number is the first beyond the front.
      redis.call('HSET', state, 'front', before)
      redis.call('UNLINK', gaps)
    end
    redis.call('HSET', items, unpack(records, 1, values))
    redis.call('HSET', users, unpack(places, 1, values))
    redis.call('RPUSH', queue, unpack(ids, 1, fresh))
    local scores = records
    for one = 1, fresh do scores[2 * one - 1], scores[2 * one] = before + one, ids[one] end
    redis.call('ZADD', positions, unpack(scores, 1, values))
    for one = 1, values, 2 do scores[one] = now + queue_timeout_ms end
    redis.call('ZADD', timeouts, unpack(scores, 1, values))
    fresh = 0
  end
  if not user_id then break end
  local held, key, answer = places_of[at], asked[1 + 4 * count + at] or '', nil
  if came_before then held = redis.call('HGET', users, user_id) end
  came[user_id] = true
  if held or key ~= '' then
    answer, held = has_place(user_id, held, key, asked[1 + 5 * count + at])
  end
  if answer then
    answers[at], again = answer, again or type(answer) == 'table'
  elseif waiting >= max_size then
    answers[at] = 'QUEUE_FULL'
  else
    local id, more = asked[1 + count + at], '\144'
    seq, waiting, fresh, joined = seq + 1, waiting + 1, fresh + 1, joined + 1
    first = first or id
    if key ~= '' then
      more = pack({ key = key, digest = asked[1 + 5 * count + at] })
      redis.call('SET', requests .. user_id .. '\n' .. key, id)
    end
    local numbers = pack(asked[1 + 2 * count + at], seq)
    if id_length ~= #id then id_length, id_head = #id, string.sub(pack(id), 1, -1 - #id) end
    if user_length ~= #user_id then
      user_length, user_head = #user_id, string.sub(pack(user_id), 1, -1 - #user_id)
    end
    ids[fresh], records[2 * fresh - 1] = id, id
    records[2 * fresh] = '\167waiting' .. user_head .. user_id .. numbers .. packed_now .. more
      .. asked[1 + 3 * count + at]
    places[2 * fresh - 1], places[2 * fresh] = user_id, held and held .. ' ' .. id or id
    answers[at] = waiting
    made[1 + joined] = '\154' .. id_head .. id .. user_head .. user_id
      .. '\160\167waiting\166joined' .. numbers .. '\160\160\0'
  end
end

if first then
  redis.call('HSET', state, 'seq', seq)
  if not last_seq then redis.call('HSET', state, 'born', first, 'born_in', engine()) end
  -- Only an empty line lets the workers rest: see claim.lua.
  if was_empty and (redis.call('HDEL', state, 'idle') == 1 or not last_seq) then wake() end
  made[1] = struct.pack('>BH', 220, joined)
  redis.call('XADD', changes, 'MAXLEN', '~', 100000, '*', 'at', now, 'by', actor,
    'c', table.concat(made, '', 1, 1 + joined))
elseif again then
  repeated()
end
return pack(answers)

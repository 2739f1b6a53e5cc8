-- Where items stand, many at once; reads only.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       items      hash        item id -> record
--       results    prefix      + item id: record of a final item
--       gaps       sorted set  sequence numbers of those who left from the middle
--       state      hash        rate_weight, rate_at, rate_since, and `front`: see front.lua
-- ARGV  ids        each
-- RETURNS now, queue_length, rate_weight, rate_at, rate_since, then two values for each id: user_id
--         and position of a waiting item, the record of any other and 0, or false and 0 (no such
--         item); in a row, as a table for each costs a quarter of all
--
-- @include now

local rate = redis.call('HMGET', state, 'rate_weight', 'rate_at', 'rate_since', 'front', 'seq')
local front, waiting = tonumber(rate[4] or math.huge), redis.call('ZCARD', positions)
local returned = redis.call('ZCOUNT', positions, '-inf', front)
local closed = front + waiting - returned == tonumber(rate[5])
local answer = { now, waiting, rate[1], rate[2], rate[3] }

local function place_of(id, seq)
  if seq > front then
    local gone = front + (closed and 0 or redis.call('ZCOUNT', gaps, '-inf', seq))
    return math.max(1, seq - gone + returned)
  end
  local rank = redis.call('ZRANK', positions, id)
  return rank and rank + 1
end

local wanted = { unpack(ARGV, ids + 1) }
local records = redis.call('HMGET', items, unpack(wanted))
local last = 5
for at, id in ipairs(wanted) do
  local record = records[at] or redis.call('GET', results .. id)
  local who, position = record, 0
  if record then
    local _, status, user_id, _, seq = cmsgpack.unpack_limit(record, 4, 0)
    local place = status == 'waiting' and place_of(id, seq)
    if place then who, position = user_id, place end
  end
  answer[last + 1], answer[last + 2] = who, position
  last = last + 2
end
return answer

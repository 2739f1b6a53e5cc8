-- Where items stand, many at once; reads only.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       items      hash        item id -> record
--       results    prefix      + item id: record of a final item
--       state      hash        counters of the event
-- ARGV  ids        each
-- RETURNS now, queue_length, rate_weight, rate_at, rate_since, then two values for each id: user_id
--         and position of a waiting item, the record of any other and 0, or false and 0 (no such
--         item); in a row, as a table for each costs a quarter of all
--
-- @include now

local rate = redis.call('HMGET', state, 'rate_weight', 'rate_at', 'rate_since')
local answer = { now, redis.call('ZCARD', positions), rate[1], rate[2], rate[3] }
local wanted = {}
for at = ids + 1, #ARGV do wanted[#wanted + 1] = ARGV[at] end
local records = redis.call('HMGET', items, unpack(wanted))
local last = 5
for at, id in ipairs(wanted) do
  local record = records[at] or redis.call('GET', results .. id)
  local who, position = record, 0
  if record then
    local _, status, user_id = cmsgpack.unpack_limit(record, 2, 0)
    local rank = status == 'waiting' and redis.call('ZRANK', positions, id)
    if rank then who, position = user_id, rank + 1 end
  end
  answer[last + 1], answer[last + 2] = who, position
  last = last + 2
end
return answer

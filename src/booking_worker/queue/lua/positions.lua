-- Where items stand, many at once; reads only.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       items      hash        item id -> record
--       results    prefix      + item id: record of a final item
--       state      hash        counters of the event
-- ARGV  ids        each
-- RETURNS now, queue_length, rate_weight, rate_at, rate_since, then for each id: false (no such
--         item), {user_id, position} of a waiting item, or the record of any other
--
-- @include now

local rate = redis.call('HMGET', state, 'rate_weight', 'rate_at', 'rate_since')
local answer = { now, redis.call('ZCARD', positions), rate[1], rate[2], rate[3] }
local wanted = {}
for at = ids + 1, #ARGV do wanted[#wanted + 1] = ARGV[at] end
local records = redis.call('HMGET', items, unpack(wanted))
for at, id in ipairs(wanted) do
  local record = records[at] or redis.call('GET', results .. id)
  if record then
    local _, status, user_id = cmsgpack.unpack_limit(record, 2, 0)
    local rank = status == 'waiting' and redis.call('ZRANK', positions, id)
    answer[at + 5] = rank and { user_id, rank + 1 } or record
  else
    answer[at + 5] = false
  end
end
return answer

-- Records of items for an operator, in the order of the line; reads only.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       admitted   sorted set  item id -> seq, for items past the line that are not final
--       dead       sorted set  item id -> when it became a dead letter
--       timeouts   sorted set  item id -> deadline, ms
--       items      hash        item id -> record
-- ARGV  index   one of: waiting, admitted, dead
--       offset  int
--       limit   int
-- RETURNS for each item: item_id, position (0: not waiting), deadline (0: none), record

local sets = { waiting = positions, admitted = admitted, dead = dead }
local answer = {}
for at, id in ipairs(redis.call('ZRANGE', sets[index], offset, offset + limit - 1)) do
  local record = redis.call('HGET', items, id)
  if record then
    local n = #answer
    answer[n + 1] = id
    answer[n + 2] = index == 'waiting' and offset + at or 0
    answer[n + 3] = tonumber(redis.call('ZSCORE', timeouts, id) or 0)
    answer[n + 4] = record
  end
end
return answer

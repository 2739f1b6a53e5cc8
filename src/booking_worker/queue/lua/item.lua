-- One item with all that is known of it; reads only.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
--       timeouts   sorted set  item id -> deadline, ms
--       items      hash        item id -> record
--       results    prefix      + item id: record of a final item
-- ARGV  item_id
-- RETURNS position (0: not waiting), deadline (0: none), record
-- ERRORS  NOT_FOUND

local record = redis.call('HGET', items, item_id) or redis.call('GET', results .. item_id)
if not record then return { err = 'NOT_FOUND' } end
local rank = redis.call('ZRANK', positions, item_id)
local deadline = redis.call('ZSCORE', timeouts, item_id)
return { rank and rank + 1 or 0, tonumber(deadline or 0), record }

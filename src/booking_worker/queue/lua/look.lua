-- Say whether housekeeping has anything to do for an event; reads only.
--
-- KEYS  timeouts  sorted set  item id -> deadline of its present status, ms
--       tasks     sorted set  item id -> rank of a task that is ready to be claimed
--       changes   stream      status changes of the event
--       state     hash        cursor: the last change that people were told of
-- RETURNS alive (1: somebody has a deadline or a task), untold (1: there are changes that nobody
--         was told of)

local alive = redis.call('ZCARD', timeouts) + redis.call('ZCARD', tasks) > 0
local last = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local untold = last and last[1] ~= redis.call('HGET', state, 'cursor')
return { alive and 1 or 0, untold and 1 or 0 }

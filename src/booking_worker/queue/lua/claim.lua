-- Hand tasks of one event to a worker: confirm before release before reserve, each in the order
-- of the line. A reserve takes the item's seats out of capacity in this same step.
--
-- ARGV  worker_id
--       limit     int
--       lease_ms  int
--       confirm   int  1 when the worker takes tasks of this kind now
--       release   int
--       reserve   int
-- RETURNS now, blocked, needs_refresh, then for each lease: item_id, token, until_ms, record
--
-- @include task
-- @include rate

local event = redis.call('HMGET', state,
  'token', 'capacity', 'processing_seats', 'held_seats', 'unlimited', 'exact', 'epoch',
  'processing', 'held')
local token = tonumber(event[1] or 0)
local answer = { now, 0, 0 }
local leases = 0

local function lease(id, item)
  token = token + 1
  leases = leases + 1
  item.more.token = token
  item.more.worker = worker_id
  redis.call('ZADD', timeouts, now + lease_ms, id)
  save(id, item)
  local n = #answer
  answer[n + 1], answer[n + 2] = id, token
  answer[n + 3], answer[n + 4] = now + lease_ms, packed_item(item)
end

local function claim_ready(task)
  local low = RANK[task]
  local ids = redis.call('ZRANGEBYSCORE', tasks, low, '(' .. string.format('%.0f', low + 2 ^ 50),
    'LIMIT', 0, limit - leases)
  for _, id in ipairs(ids) do
    redis.call('ZREM', tasks, id)
    local item = live_item(id)
    if item then lease(id, item) end
  end
end

if confirm == 1 then claim_ready('confirm') end
if release == 1 and leases < limit then claim_ready('release') end
if reserve == 1 and leases < limit then claim_ready('reserve') end

-- Who stands at the head of the line: in order, while there is something left to sell.
local capacity = tonumber(event[2] or 0)
local in_flight = tonumber(event[3] or 0) + tonumber(event[4] or 0)
local unlimited, exact = event[5] == '1', event[6] == '1'
local current = event[7] == string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local function admit_head(id)
  local item = live_item(id)
  if not item then
    leave_line(id)
    return true
  end
  if not unlimited and item.seats > capacity then
    -- What is in flight may come back; what is confirmed never does.
    if not exact or item.seats <= capacity + in_flight then return false end
    finish(id, item, 'sold_out', 'fewer tickets are left than this request needs')
    return true
  end
  capacity = capacity - item.seats
  in_flight = in_flight + item.seats
  enter_processing(item)
  add('admitted', 1)
  item.status = 'processing'
  leave_line(id)
  redis.call('ZADD', admitted, item.seq, id)
  change(id, item, 'waiting', 'admitted')
  lease(id, item)
  return true
end

local admitted_before = leases
if reserve == 1 and current and leases < limit then
  for _, id in ipairs(redis.call('ZRANGE', positions, 0, limit - leases - 1)) do
    if not admit_head(id) then break end
  end
end
local waiting = redis.call('ZCARD', positions)
if leases > admitted_before then count_admissions(leases - admitted_before) end
trim_queue(2 * limit)

if waiting == 0 then
  if leases < limit then redis.call('HSET', state, 'idle', 1) end
elseif leases < limit and reserve == 1 then
  local nothing_left = exact and capacity <= 0 and in_flight == 0
  answer[2] = 1
  if not current or (not unlimited and (not exact or nothing_left)) then answer[3] = 1 end
end
if token > tonumber(event[1] or 0) then redis.call('HSET', state, 'token', token) end
commit()
return answer

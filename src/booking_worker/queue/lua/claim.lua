-- Hand tasks of one event to a worker: confirm before release before reserve, each in the order
-- of the line. A reserve takes the item's seats out of capacity in this same step.
-- Suspects (see task.lua) are handed out only when asked for, and then nothing else is.
--
-- ARGV  worker_id
--       limit     int
--       lease_ms  int
--       confirm   int  1 when the worker takes tasks of this kind now
--       release   int
--       reserve   int
--       admit     int  0 while nobody is admitted to any event
--       suspects  int  1 when the worker has nothing in hand, and takes suspects only
-- RETURNS now, blocked, needs_refresh, suspects (1: there are any, of these kinds), which engine
--         this is (empty where nobody waits and nothing is leased), then for each lease: item_id,
--         token, until_ms, record
--
-- @include task
-- @include rate
-- @include token

local event = redis.call('HMGET', state,
  'token', 'capacity', 'processing_seats', 'held_seats', 'unlimited', 'exact', 'epoch',
  'idle', 'token_engine', 'paused', 'settled_at', 'born_in')
local answer = { now, 0, 0, 0, '' }
local token, leases = nil, 0

local function lease(id, item)
  token = (token or last_token(event[1], event[9] or event[12])) + 1
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
  local low, high = ranks_of(task, suspects == 1)
  local ids = redis.call('ZRANGEBYSCORE', tasks, low, high, 'LIMIT', 0, limit - leases)
  for _, id in ipairs(ids) do
    redis.call('ZREM', tasks, id)
    local item = live_item(id)
    if item then lease(id, item) end
  end
end
local any_ready = redis.call('ZCARD', tasks) > 0
if any_ready and confirm == 1 then claim_ready('confirm') end
if any_ready and release == 1 and leases < limit then claim_ready('release') end
if any_ready and reserve == 1 and leases < limit then claim_ready('reserve') end

-- Who stands at the head of the line: in order, while there is something left to sell.
local capacity = tonumber(event[2] or 0)
local in_flight = tonumber(event[3] or 0) + tonumber(event[4] or 0)
local unlimited = event[5] == '1'
local exact = event[6] == '1' and now >= tonumber(event[11] or 0)
local current = redis.call('ZCARD', positions) == 0 or event[7] == engine()

local function admit_head(id)
  local item = live_item(id)
  if not item or item.status ~= 'waiting' then
    leave_line(id)
    return true
  end
  if not unlimited and item.seats > capacity then
    -- What is in flight may come back; what is confirmed never does. When nothing at all is
    -- left, sell_out.lua tells everybody at once.
    local may_come = capacity + in_flight
    if not exact or may_come <= 0 or item.seats <= may_come then return false end
    finish(id, item, 'sold_out', 'fewer tickets are left than this request needs')
    return true
  end
  capacity = capacity - item.seats
  in_flight = in_flight + item.seats
  enter_processing(item)
  add('admitted', 1)
  item.status = 'processing'
  leave_line(id, item.seq)
  redis.call('ZADD', admitted, item.seq, id)
  change(id, item, 'waiting', 'admitted')
  lease(id, item)
  return true
end

-- Heads that could never fit leave without a lease: look further, but not for too long at once.
local MOST_HEADS = 500
local admitted_before, looked = leases, 0
local stuck = not current or admit == 0 or event[10]
while reserve == 1 and suspects == 0 and not stuck and leases < limit do
  local heads = redis.call('ZRANGE', positions, 0, limit - leases - 1)
  for _, id in ipairs(heads) do
    stuck = stuck or not admit_head(id)
  end
  looked = looked + #heads
  if #heads == 0 then break end
  if looked > MOST_HEADS then
    wake()
    break
  end
end
if leases > admitted_before then count_admissions(leases - admitted_before) end

local idle = redis.call('ZCARD', positions) == 0
if idle and leases < limit and not event[8] then
  redis.call('HSET', state, 'idle', 1)
elseif stuck and not idle and reserve == 1 then
  local nothing_left = exact and capacity <= 0 and in_flight == 0
  answer[2] = 1
  if not current or (not unlimited and (not exact or nothing_left)) then answer[3] = 1 end
end
if any_ready and redis.call('ZCOUNT', tasks, SUSPECT, '+inf') > 0 then
  for task, takes in pairs({ confirm = confirm, release = release, reserve = reserve }) do
    if takes == 1 and redis.call('ZCOUNT', tasks, ranks_of(task, true)) > 0 then answer[4] = 1 end
  end
end
if token then gave('token', token) end
answer[5] = here or ''
commit()
return answer

-- Cross-check one chunk of one index against the records, and mend what disagrees.
--
-- Every live item is in the indexes that its status asks for, and every entry of an index has
-- an item: a live item whose deadline is lost would be stuck for ever, and a user whose place is
-- lost could not join again. Then whether the numbers in the line add up, from which positions are
-- told.
--
-- ARGV  index     one of: items, users, timeouts, tasks, positions, admitted, dead
--       cursor    as SCAN's: 0 begins and ends
--       lease_ms  int
-- RETURNS the next cursor, then for each mended entry: item, user or event id, what was wrong
--
-- @include task

local answer = {}

local function mended(id, wrong)
  local n = #answer
  answer[n + 1], answer[n + 2] = id, wrong
end

local function score(set, id)
  return redis.call('ZSCORE', set, id)
end

local function check_waiting(id, item)
  if not score(positions, id) then
    redis.call('ZADD', positions, item.seq, id)
    mended(id, 'waiting, but not in the line')
  end
  if not score(timeouts, id) then
    redis.call('ZADD', timeouts, waiting_until(item), id)
    mended(id, 'waiting, but without a deadline')
  end
end

local function check_admitted(id, item)
  if not score(admitted, id) then
    redis.call('ZADD', admitted, item.seq, id)
    mended(id, 'admitted, but not listed')
  end
  local due, ready = score(timeouts, id), score(tasks, id)
  if due and ready then
    local busy = item.more.token or not TASK_OF[item.status]
    redis.call('ZREM', busy and tasks or timeouts, id)
    mended(id, item.status .. ', both ready and with a deadline')
  end
  if due or ready then return end
  if item.status == 'awaiting_payment' then
    redis.call('ZADD', timeouts, item.more.pay_by, id)
  elseif item.more.token then
    redis.call('ZADD', timeouts, now + lease_ms, id)
  else
    make_ready(id, item)
  end
  mended(id, item.status .. ', but without a deadline')
end

local function check_item(id, record)
  local item = unpacked(record)
  if item.status == 'failed' then
    if not score(dead, id) then
      redis.call('ZADD', dead, now, id)
      mended(id, 'a dead letter, but not listed')
    end
    return
  end
  local places = redis.call('HGET', users, item.user_id) or ''
  if not string.find(' ' .. places .. ' ', ' ' .. id .. ' ', 1, true) then
    take_place(item.user_id, id)
    mended(id, "its user's place was lost")
  end
  if item.status == 'waiting' then
    check_waiting(id, item)
  else
    check_admitted(id, item)
  end
end

local function check_user(user_id, places)
  for id in string.gmatch(places, '%S+') do
    local item = live_item(id)
    if not item or item.status == 'failed' then
      drop_place(user_id, id)
      mended(user_id, 'a place without an item')
    end
  end
end

local sets = {
  timeouts = timeouts, tasks = tasks, positions = positions, admitted = admitted, dead = dead,
}
local STRANGERS = {
  timeouts = { failed = 1 },
  tasks = { waiting = 1, awaiting_payment = 1, failed = 1 },
  positions = { processing = 1, awaiting_payment = 1, confirming = 1, releasing = 1, failed = 1 },
  admitted = { waiting = 1, failed = 1 },
  dead = { waiting = 1, processing = 1, awaiting_payment = 1, confirming = 1, releasing = 1 },
}

local function check_entry(id)
  local item = live_item(id)
  if not item or STRANGERS[index][item.status] then
    redis.call('ZREM', sets[index], id)
    mended(id, 'in ' .. index .. ', but ' .. (item and item.status or 'there is no item'))
  end
end

local hashes = { items = items, users = users }
local check = index == 'items' and check_item or index == 'users' and check_user or check_entry
local page = hashes[index] and redis.call('HSCAN', hashes[index], cursor, 'COUNT', 200)
  or redis.call('ZSCAN', sets[index], cursor, 'COUNT', 200)
for at = 1, #page[2], 2 do check(page[2][at], page[2][at + 1]) end
if index == 'positions' and page[1] == '0' and not front_adds_up() then
  forget_front()
  mended(event_id, 'in line or gone, but not all are accounted for')
end
commit()
table.insert(answer, 1, page[1])
return answer

-- Act on the deadlines of one event that have passed, the earliest first, at most `limit`.
--
-- Waiting too long ends the place; an unpaid hold is released; a lease that ended without an
-- answer, and a backoff that is over, make the task ready for the next worker.
--
-- ARGV  limit        int
--       overdue_ms   int  deadlines count that passed so long ago at least
--       max_crashes  int  leases that may end without an answer before it is a dead letter
-- RETURNS moved, more (1: call again), milliseconds until the next deadline (-1: there is none)
--
-- @include dead_letter

local function lease_ended(id, item)
  item.more.crashes = (item.more.crashes or 0) + 1
  if item.more.crashes >= max_crashes then
    to_dead_letter(id, item, 'its worker never answered, ' .. max_crashes .. ' times')
  else
    make_ready(id, item)
    save(id, item)
  end
end

local function act(id, item)
  if item.status == 'waiting' then
    finish(id, item, 'expired', 'waited longer than the queue allows')
  elseif item.status == 'awaiting_payment' then
    begin_release(id, item, 'expired', 'not paid in time')
    save(id, item)
  elseif item.more.token then
    lease_ended(id, item)
  else
    make_ready(id, item)
  end
end

local due = redis.call('ZRANGEBYSCORE', timeouts, '-inf', now - overdue_ms, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local item = live_item(id)
  if item and item.status ~= 'failed' then
    act(id, item)
  else
    redis.call('ZREM', timeouts, id)
  end
end
commit()

local next_due = redis.call('ZRANGE', timeouts, 0, 0, 'WITHSCORES')
local next_in = next_due[2] and math.max(0, next_due[2] - now) or -1
return { #due, #due == limit and 1 or 0, next_in }

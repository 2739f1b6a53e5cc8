-- Tasks: making one ready for a worker, and where an item goes when its task has ended.
--
-- An admitted item is in `tasks` (ready to be claimed) or in `timeouts` (leased, backing off, or
-- held until its deadline), never in both, never in neither.
--
-- ARGV  queue_timeout_ms  int
--
-- @include item
-- @include wake

local TASK_OF = { processing = 'reserve', confirming = 'confirm', releasing = 'release' }

-- Confirm before release before reserve, each in the order of the line. Behind them all, in the
-- same order, come the suspects: two workers were lost over them. Who works on one of them works
-- on nothing else, so that it takes nobody along should it be the one that kills. One loss makes
-- no suspect: that is all that a process had in hand when it died, whatever it died of.
local RANK = { confirm = 0, release = 2 ^ 50, reserve = 2 ^ 51 }
local SUSPECT = 2 ^ 52
local LOSSES = 2

-- From which to which rank the tasks of a kind are, as ZRANGEBYSCORE and ZCOUNT take it.
local function ranks_of(task, suspects)
  local low = RANK[task] + (suspects and SUSPECT or 0)
  return low, '(' .. string.format('%.0f', low + 2 ^ 50)
end

local function make_ready(id, item)
  item.more.token = nil
  redis.call('ZREM', timeouts, id)
  local rank = RANK[TASK_OF[item.status]] + item.seq
  if (item.more.crashes or 0) >= LOSSES then rank = rank + SUSPECT end
  redis.call('ZADD', tasks, rank, id)
  wake()
end

local function begin_release(id, item, target, why)
  local before = item.status
  item.status = 'releasing'
  item.more.target = target
  item.more.reason = why
  item.more.attempts = nil
  item.more.crashes = nil
  add('releasing_seats', item.seats)
  make_ready(id, item)
  change(id, item, before, why)
end

-- The booking is paid and confirmed: the happy end.
local function complete(id, item, booking_reference, why)
  leave_held(item, 'confirmed_seats')
  if booking_reference ~= '' then item.more.booking_reference = booking_reference end
  finish(id, item, 'completed', why)
end

-- When an item that is not admitted by then has waited too long, ms.
local function waiting_until(item)
  return (item.more.requeued_at or item.joined_at) + queue_timeout_ms
end

local function back_to_line(id, item, why)
  local before = item.status
  item.status = 'waiting'
  add('admitted', -1)
  item.more.token = nil
  redis.call('ZREM', timeouts, id)
  redis.call('ZREM', tasks, id)
  redis.call('ZREM', admitted, id)
  return_to_line(id, item.seq)
  redis.call('ZADD', timeouts, waiting_until(item), id)
  change(id, item, before, why)
  wake()
end

-- Write everything: the last line of every transition.
local function commit()
  commit_books()
  publish_changes()
end

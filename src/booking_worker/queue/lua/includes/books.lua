-- The books of one event: counters, and the seats that must add up after every script.
--
--     capacity + processing_seats + held_seats + confirmed_seats = total_seats
--
-- `moves` counts every movement of seats: a refresh of capacity that saw none between its
-- question and its answer is exact.
--
-- KEYS  state  hash  counters and capacity of the event

local deltas = {}

local function add(field, by)
  deltas[field] = (deltas[field] or 0) + by
end

local function move_seats(from, to, seats)
  add(from, -seats)
  add(to, seats)
  add('moves', 1)
end

-- Take seats off the books until a refresh finds where they are: nothing is ever overstated.
local function write_off(from, seats)
  add(from, -seats)
  add('total_seats', -seats)
  add('moves', 1)
  redis.call('HSET', state, 'exact', 0)
end

local function enter_processing(item)
  move_seats('capacity', 'processing_seats', item.seats)
  add('processing', 1)
end

-- Of an item whose booking exists: its seats are in no answer any more.
local function reenter_processing(item)
  add('processing_seats', item.seats)
  add('total_seats', item.seats)
  add('moves', 1)
  add('processing', 1)
end

local function leave_processing(item, to)
  if to then
    move_seats('processing_seats', to, item.seats)
  else
    -- A booking may exist that an answer on its way does not know of: as good as settled.
    add('settled_seats', item.seats)
    write_off('processing_seats', item.seats)
  end
  add('processing', -1)
end

local function enter_held(item, from)
  if from then
    move_seats(from, 'held_seats', item.seats)
  else
    add('held_seats', item.seats)
    add('total_seats', item.seats)
    add('moves', 1)
  end
  add('held', 1)
end

local function leave_held(item, to)
  if to then
    move_seats('held_seats', to, item.seats)
  else
    write_off('held_seats', item.seats)
  end
  if item.status == 'releasing' then add('releasing_seats', -item.seats) end
  add('held', -1)
end

local function commit_books()
  for field, by in pairs(deltas) do
    if by ~= 0 then redis.call('HINCRBY', state, field, by) end
  end
end

-- Set how many seats may still be admitted, from an answer that is older than this moment.
--
-- It never overstates: seats that settled since the question, that are being processed, and
-- whose release is under way are taken off, as the answer may count them as left. It is exact
-- when no seat moved between the question and now, and none is on its way. A question that was
-- put to another engine, or to books that are lost, says nothing about these. After an engine has
-- taken another's place nothing is certain for some seconds: see readmit.lua.
--
-- When another's answer came between the question and now, this one may be the older of the two,
-- by however long its worker was stopped: then it may only lower what is left, and is not exact.
--
-- KEYS  positions  sorted set  waiting item id -> sequence number
-- ARGV  available      int  seats left by the answer; -1: unlimited
--       settled_seats  int  these as they were at the question
--       moves          int
--       refreshes      int
--       asked_engine   which engine was asked
--       born           the first item ever, by the books that were asked; empty: none
-- RETURNS waiting, or -1 when nothing was set, as other books were asked than these
--
-- @include books
-- @include engine
-- @include now
-- @include wake

local event = redis.call('HMGET', state,
  'settled_seats', 'moves', 'processing_seats', 'releasing_seats', 'held_seats', 'confirmed_seats',
  'refreshes', 'capacity')
for at = 1, 8 do event[at] = tonumber(event[at] or 0) end
local settled, moved, processing, releasing, held, confirmed, refreshed, capacity = unpack(event)
local waiting = redis.call('ZCARD', positions)

local lost = born ~= '' and redis.call('HGET', state, 'born') ~= born
if lost or asked_engine ~= engine() or settled < settled_seats or moved < moves then
  return -1
end

local left, exact, unlimited = 0, 1, 1
if available >= 0 then
  local on_the_way = (settled - settled_seats) + processing + releasing
  left = math.max(0, available - on_the_way)
  exact = (moved == moves and processing == 0 and releasing == 0) and 1 or 0
  unlimited = 0
end
if refreshed ~= refreshes then
  if unlimited == 0 and left < capacity then
    redis.call('HSET', state, 'capacity', left, 'exact', 0,
      'total_seats', left + processing + held + confirmed)
  end
  return waiting
end
local SETTLING_MS = 5000
local engines = redis.call('HMGET', state, 'epoch', 'born_in')
local before = engines[1] or engines[2]
if before and before ~= engine() then
  redis.call('HSET', state, 'settled_at', string.format('%.0f', now + SETTLING_MS))
end
redis.call('HSET', state, 'refreshes', refreshed + 1,
  'capacity', left, 'total_seats', left + processing + held + confirmed,
  'exact', exact, 'unlimited', unlimited, 'epoch', engine())

if left > 0 or unlimited == 1 then
  redis.call('HDEL', state, 'sold_out')
  if waiting > 0 then wake() end
end
return waiting

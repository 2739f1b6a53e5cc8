-- The record of the layout: its version, and whether anybody is admitted at all.
--
-- A fresh engine has none, and gets one. Where the caller knew another one, the engine has lost
-- its data, or is not the one that had them: nobody is admitted then until an operator says so.
-- Whoever knew the same one finds that said already, also when the operator has spoken since.
--
-- KEYS  layout  hash  version, id, created_at, replaces; paused, paused_by, paused_at
-- ARGV  version   int  of the keys that the caller makes
--       known_id  the id that the caller has seen; empty for none yet
--       new_id    for a record that has to be made
--       lost      why nobody is admitted when the data are lost
-- RETURNS version, id, created_at, paused (why; empty when it is not), paused_by, paused_at
--
-- @include now

local function read()
  return redis.call('HMGET', layout,
    'version', 'id', 'created_at', 'paused', 'paused_by', 'paused_at', 'replaces')
end

local found = read()
if not found[2] then
  redis.call('HSET', layout, 'version', version, 'id', new_id, 'created_at', now)
  found = read()
end
if known_id ~= '' and known_id ~= found[2] and known_id ~= found[7] then
  redis.call('HSET', layout,
    'replaces', known_id, 'paused', lost, 'paused_by', 'system', 'paused_at', now)
  found = read()
end
return {
  tonumber(found[1]), found[2], tonumber(found[3]),
  found[4] or '', found[5] or '', tonumber(found[6] or 0),
}

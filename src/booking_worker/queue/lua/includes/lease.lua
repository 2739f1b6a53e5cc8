-- The item that this script is about, for the holder of its lease.
--
-- ARGV  item_id
--       token    int  the lease's fencing token
--
-- @include fence

local function leased_item()
  return leased(item_id, token)
end

local FENCED = { err = 'FENCED' }

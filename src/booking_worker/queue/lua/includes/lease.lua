-- Only the holder of an item's lease answers for its task.
--
-- ARGV  item_id
--       token    int  the lease's fencing token
--
-- @include task

-- The item whose task is leased under this token, or nil when the lease has ended.
local function leased_item()
  local item = live_item(item_id)
  if item and item.more.token == token then return item end
end

local FENCED = { err = 'FENCED' }

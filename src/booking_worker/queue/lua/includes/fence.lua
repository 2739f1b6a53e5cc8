-- Only the holder of an item's lease answers for its task.
--
-- @include task

-- The item whose task is leased under this token, or nil when the lease has ended.
local function leased(id, under)
  local item = live_item(id)
  if item and item.more.token == under then return item end
end

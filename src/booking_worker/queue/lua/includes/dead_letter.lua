-- The end of a task that failed for good.
--
-- @include task

local function to_dead_letter(id, item, why)
  item.more.task = TASK_OF[item.status]
  -- A booking may exist all the same: only a refresh of capacity knows.
  if item.status == 'processing' then
    leave_processing(item, nil)
  else
    leave_held(item, nil)
  end
  bury(id, item, why)
end

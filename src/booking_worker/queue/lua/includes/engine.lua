-- Which engine this is: another id after each start, and after each failover also where an old
-- master takes its place back, with less than it once knew.

local here

local function engine()
  here = here or string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  return here
end

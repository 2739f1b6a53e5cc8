-- Let go of the lock of an event on one lock node, if it is still the owner's.
--
-- KEYS  lock   string  who holds it
-- ARGV  owner  the word that it was taken with
-- RETURNS 1 when it was the owner's

return redis.call('GET', lock) == owner and redis.call('DEL', lock) or 0

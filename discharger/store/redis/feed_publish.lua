-- Appends events to a feed, with feed_append.lua in front.
--
-- KEYS  1 the feed   2 the marker of its bucket   3 its losses
-- ARGV  1 the store's identity   2 how many events there may be
--       then the events
--
-- Returns 1 done, -1 this is not that store.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
append(KEYS[1], KEYS[3], tonumber(ARGV[2]), 3)
return 1

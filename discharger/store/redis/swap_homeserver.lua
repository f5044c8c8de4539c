-- Replaces a homeserver's record if it is the old or the new one, and then appends
-- events to the feed, with feed_append.lua in front.
--
-- KEYS  1 the record   2 the marker of its bucket   3 the feed   4 its losses
-- ARGV  1 the store's identity   2 old record   3 new record; empty is none
--       4 how many events there may be, then the events
--
-- Returns 1 done, 0 something else is there, -1 this is not that store.
local key, marker, old, new = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
if redis.call('GET', marker) ~= ARGV[1] then return -1 end
redis.call('SET', marker, ARGV[1]) -- a write, for WAIT
local is = redis.call('GET', key) or ''
if is ~= old and is ~= new then return 0 end
if new == '' then redis.call('DEL', key) else redis.call('SET', key, new) end
if #ARGV > 4 then append(KEYS[3], KEYS[4], tonumber(ARGV[4]), 5) end
return 1

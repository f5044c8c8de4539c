-- Shows that the store takes a write, and notes about once a minute that it
-- did: a heartbeat.
--
-- KEYS  1 the heartbeats   2 the marker of their bucket
-- ARGV  1 the store's identity   2 milliseconds between two heartbeats   3 how many are kept
--
-- Returns the id of the newest heartbeat, whose first part is a time in Unix
-- ms, and how many there are of the last ten intervals; nothing if this is not
-- that store.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {} end
redis.call('SET', KEYS[2], ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local recent = redis.call('XRANGE', KEYS[1], string.format('%.0f', now - 10 * ARGV[2]), '+')
local newest = #recent > 0 and recent[#recent][1]
if newest and tonumber(string.match(newest, '^%d+')) > now - ARGV[2] then return {newest, #recent} end
return {redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], '*', 'b', '1'), #recent + 1}

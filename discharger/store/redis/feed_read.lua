-- Reads some of a feed after an event, or from the beginning.
--
-- KEYS  1 the feed   2 the marker of its bucket   3 its losses
-- ARGV  1 the store's identity   2 id of the event, "" for the beginning   3 how many at most
--       4 by how many milliseconds to go back if a failover took the event back; 0: to the beginning
--
-- Returns {-1} if this is not that store, or {1, gap, id, data, id, data, …},
-- where gap is 1 if the event is not there and was not the last one either, or
-- if there are losses at the beginning. If older events are there, they are
-- those that were there before the event: the reader has them.
local feed, after = KEYS[1], ARGV[2]
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {-1} end

local function is_last()
  if redis.call('EXISTS', feed) == 0 then return false end
  local info = redis.call('XINFO', 'STREAM', feed)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] == after end
  end
  return false
end

local out, from = {1, 0}, '-'
if after == '' then
  out[2] = redis.call('EXISTS', KEYS[3])
elseif #redis.call('XRANGE', feed, after, after) == 1 or is_last() then
  from = '(' .. after
else
  local function ms(id) return tonumber(string.match(id, '^%d+')) end
  local first = redis.call('XRANGE', feed, '-', '+', 'COUNT', 1)[1]
  if ARGV[4] ~= '0' and first and ms(first[1]) < ms(after) then
    from = string.format('%.0f', math.max(ms(after) - ARGV[4], 0))
  else
    out[2] = 1
  end
end
for _, e in ipairs(redis.call('XRANGE', feed, from, '+', 'COUNT', ARGV[3])) do
  out[#out + 1] = e[1]
  out[#out + 1] = e[2][4]
end
return out

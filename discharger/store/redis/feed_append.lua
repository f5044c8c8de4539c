-- Appends events to a feed. Expired events are removed, from the oldest up to the
-- first that must stay, and so are the oldest if there are too many. The number of
-- removed events is bounded by the number of appended ones.
--
-- from is where in ARGV the events begin, each as until (Unix ms) and data.
local function append(feed, lost, max, from)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + clock[2] / 1000
  local added = (#ARGV - from + 1) / 2
  for i = from, #ARGV, 2 do
    redis.call('XADD', feed, '*', 'u', ARGV[i], 'e', ARGV[i + 1])
  end
  local over = redis.call('XLEN', feed) - max
  local missed = 0 -- until when it matters that events were dropped
  for i, e in ipairs(redis.call('XRANGE', feed, '-', '+', 'COUNT', 2 * added + 1)) do
    local till = tonumber(e[2][2])
    if till > now then
      if i > over then break end
      missed = math.max(missed, till)
    end
    redis.call('XDEL', feed, e[1])
  end
  if missed > tonumber(redis.call('GET', lost) or '0') then
    local text = string.format('%.0f', missed)
    redis.call('SET', lost, text, 'PXAT', text)
  end
end


-- Makes all changes of a write if every record is the old or the new one of its
-- change. Package keys describes the form of a record.
--
-- KEYS  1 the user's hash   2 the marker of its bucket
-- ARGV  1 the store's identity
--       2 the caller's clock, Unix seconds: a session that has expired by it is none
--       3 "1" if the script must write in any case, for WAIT
--       then for each change: first field, old record, new record, expiry (4 bytes);
--       an empty record is none
--
-- Returns 1 done, 0 something else is there, -1 this is not that store.
local key, marker, now = KEYS[1], KEYS[2], tonumber(ARGV[2])
if redis.call('GET', marker) ~= ARGV[1] then return -1 end
if ARGV[3] == '1' then redis.call('SET', marker, ARGV[1]) end

local header, piece = 5, 64 -- longer values would make the hash a table
local survey_at_most, sample = 512, 64

local function second(first) -- the two fields where a second piece may be
  if #first ~= 16 then return {'1', '1'} end
  return {tostring(string.byte(first) % 126 + 2), first .. '\1'}
end

local function read(first)
  local at = second(first)
  local got = redis.call('HMGET', key, first, at[1], at[2])
  if not got[1] then return {record = '', expiry = 0, place = 0} end
  if #got[1] <= header then return nil end
  local expiry, place = struct.unpack('>I4B', got[1])
  local rest = place == 0 and '' or got[place + 1]
  if not rest then return nil end
  local record = string.sub(got[1], header + 1) .. rest
  if #first == 16 and expiry ~= 0 and expiry <= now then record = '' end
  return {record = record, expiry = expiry, place = place, present = true}
end

local function write(first, new, expiry, place)
  local at = second(first)
  if header + #new <= piece or #first == 9 then -- a device's record is never cut
    redis.call('HSET', key, first, expiry .. '\0' .. new)
    if place ~= 0 then redis.call('HDEL', key, at[place]) end
    return
  end
  if place == 0 then place = redis.call('HEXISTS', key, at[1]) == 0 and 1 or 2 end
  local cut = piece - 1 - header -- 63 bytes cost two less than 64
  redis.call('HSET', key, first, expiry .. string.char(place) .. string.sub(new, 1, cut),
    at[place], string.sub(new, cut + 1))
end

local function remove(first, place)
  redis.call('HDEL', key, first)
  if place ~= 0 then redis.call('HDEL', key, second(first)[place]) end
end

-- Compare everything before changing anything.
local due = {}
local last, never = 0, false -- the new records' latest expiry
local raise, survey = false, false
for i = 4, #ARGV, 4 do
  local first, old, new = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local is = read(first)
  if not is then return redis.error_reply('DAMAGED a record is incomplete') end
  if is.record ~= old and is.record ~= new then return 0 end
  if is.record == old and (old ~= '' or new ~= '') then
    due[#due + 1] = {first, new, ARGV[i + 3], is.place}
    local expiry = struct.unpack('>I4', ARGV[i + 3])
    if new == '' or not is.present then
      survey = true
    elseif expiry ~= is.expiry then
      if expiry == 0 or (is.expiry ~= 0 and expiry > is.expiry) then raise = true else survey = true end
    end
    if new ~= '' then
      if expiry == 0 then never = true else last = math.max(last, expiry) end
    end
  end
end
local before = (raise or survey) and redis.call('PTTL', key) -- -1 never, -2 no key
for _, c in ipairs(due) do
  if c[2] == '' then remove(c[1], c[4]) else write(unpack(c)) end
end

-- The key goes when its last record does. If records came, went or were cut
-- short, look at all of them, and drop the sessions that have expired by the
-- server's own clock; of a very large hash look at a sample and never lower
-- the expiry of the key.
if survey then
  local time = redis.call('TIME')
  local clock = tonumber(time[1])
  local all
  if redis.call('HLEN', key) <= survey_at_most then
    all = redis.call('HGETALL', key)
  else
    all = redis.call('HRANDFIELD', key, sample, 'WITHVALUES')
    if before == -1 then never = true end
    -- A whole second, and the clock may have gone on since PTTL.
    last = math.max(last, math.floor((clock * 1000 + math.floor(time[2] / 1000) + before) / 1000))
  end
  for i = 1, #all, 2 do
    local first, value = all[i], all[i + 1]
    if #first == 16 or first == '0' then
      local expiry, place = 0, 0 -- a damaged record stays
      if #value > header then expiry, place = struct.unpack('>I4B', value) end
      if expiry == 0 or place > 2 then
        never = true
      elseif #first == 16 and expiry <= clock then
        remove(first, place)
      else
        last = math.max(last, expiry)
      end
    elseif #first == 9 then -- a device stays with the sessions, and by itself until then
      local expiry = #value > header and struct.unpack('>I4', value) or 0
      if expiry == 0 then never = true else last = math.max(last, expiry) end
    end
  end
end
if not (raise or survey) then return 1 end
if never then
  redis.call('PERSIST', key)
elseif survey then
  if last > 0 then redis.call('EXPIREAT', key, last) end
elseif before >= 0 then
  local clock = redis.call('TIME')
  if last * 1000 > tonumber(clock[1]) * 1000 + tonumber(clock[2]) / 1000 + before then
    redis.call('EXPIREAT', key, last)
  end
end
return 1

-- Counts reservations against limits in one step: all of a request's amounts or none.
-- `redis_store.py` calls it; counters.py counts the same way in one process, and both pass
-- the same tests. Times are Unix milliseconds; numbers are whole and under 2^53.
--
--   KEYS[1]   the reservation: a hash  x expires, p pieces (packed), k counter keys, n note;
--             once it is closed, for a while, only  d the note of its end, and until somebody
--             confirms that its events are on disk  u how long it is known from then on
--   KEYS[2]   the tenant's leases: a sorted set of reservation ids by expiry; of a closed one
--             by the time from which others see to its events
--   KEYS[3..] the counters, one for each meter
--   ARGV[1]   operation; ARGV[2] now, or "" for the server's clock; ARGV[3] reservation id
--
-- A counter is, by its kind,
--   c  calendar: a hash  s start of the window, u used; without s it must be seeded, and u is
--                what reservations that were restored before that hold: i:<id> names each
--   b  bucket:   a hash  l level, p poured in all, r rate, t seen at, e epoch (in drops),
--                h holes: where something was given back, and how much (packed)
--   s  slots:    a sorted set of reservation ids by expiry

local DROPS = 60000
local FOREVER = 253370764800000
local DAY = 86400000
local SLOT_RETRY = 1000
local MOST_HOLES = 256
-- How long it is remembered that a reservation is closed. A settlement is in the database
-- long before; a claim must be known when the process that made the reservation is back.
local SETTLED = 120000
local CLAIMED = DAY
-- Time for whoever closed a reservation to confirm that its events are on disk.
local GRACE = 5000

local operation, id = ARGV[1], ARGV[3]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local APART = 'i:'

local function whole(number) return string.format('%.0f', number) end

local function numbers(key, ...)
  local values = redis.call('HMGET', key, ...)
  for i = 1, #values do values[i] = tonumber(values[i] or nil) end
  return values
end

-- Reads a bucket and drains it to now. Epochs tell its lives apart: it is forgotten when empty.
local function bucket(key)
  local v = numbers(key, 'l', 'p', 'r', 't', 'e')
  if not v[1] then return {level = 0, poured = 0, rate = 0, seen = now, epoch = now} end
  local b = {level = v[1], poured = v[2], rate = v[3], seen = v[4], epoch = v[5]}
  if now > b.seen then
    b.level = math.max(0, b.level - b.rate * (now - b.seen))
    b.seen = now
  end
  return b
end

local function keep_bucket(key, b)
  redis.call('HSET', key, 'l', whole(b.level), 'p', whole(b.poured), 'r', whole(b.rate),
    't', whole(b.seen), 'e', whole(b.epoch))
  if b.holes then redis.call('HSET', key, 'h', cmsgpack.pack(b.holes)) end
  if b.rate > 0 then
    redis.call('PEXPIRE', key, whole(math.ceil(b.level / b.rate) + DAY))
  end
end

-- What was poured in before this place has drained or was given back.
local function front(key, b)
  local packed = redis.call('HGET', key, 'h')
  b.holes = packed and cmsgpack.unpack(packed) or {}
  local place = b.poured - b.level
  for _, hole in ipairs(b.holes) do place = place - hole[2] end
  while b.holes[1] and b.holes[1][1] <= place do place = place + table.remove(b.holes, 1)[2] end
  return place
end

local function drained_at(drops, rate)
  if rate <= 0 then return FOREVER end
  return now + math.ceil(math.max(drops, 0) / rate)
end

-- What a meter's counter says: {used, resets, fits}, or nil where the ledger must be asked.
local function read(meter, amount)
  if meter.kind == 'c' then
    local v = numbers(meter.key, 's', 'u')
    if not v[1] then return nil end
    if v[1] < meter.start then v[2] = 0 end
    return {v[2], meter.ends, meter.ends}
  elseif meter.kind == 'b' then
    local b = bucket(meter.key)
    return {math.ceil(b.level / DROPS), drained_at(b.level, meter.limit),
      drained_at(b.level + (amount - meter.limit) * DROPS, meter.limit)}
  end
  redis.call('ZREMRANGEBYSCORE', meter.key, '-inf', whole(now))
  return {redis.call('ZCARD', meter.key), now + SLOT_RETRY, now + SLOT_RETRY}
end

-- Takes an amount; returns where: a mark, and a bucket's epoch.
local function take(meter, amount, expires)
  if meter.kind == 'c' then
    local start = numbers(meter.key, 's')[1]
    if start and start < meter.start then
      redis.call('HSET', meter.key, 's', whole(meter.start), 'u', '0')
    end
    redis.call('HINCRBY', meter.key, 'u', whole(amount))
    if not start then redis.call('HSET', meter.key, APART .. id, '') end
    if meter.ends < FOREVER then redis.call('PEXPIRE', meter.key, whole(meter.ends - now + DAY)) end
    return math.max(start or 0, meter.start), 0
  elseif meter.kind == 'b' then
    local b = bucket(meter.key)
    local mark = b.poured
    b.rate = meter.limit
    b.poured = b.poured + amount * DROPS
    b.level = b.level + amount * DROPS
    keep_bucket(meter.key, b)
    return mark, b.epoch
  end
  if amount > 0 then
    redis.call('ZADD', meter.key, whole(expires), id)
    redis.call('PEXPIRE', meter.key, whole(math.max(expires - now, redis.call('PTTL', meter.key))))
  end
  return 0, 0
end

-- Changes what was taken, as far as it still counts.
local function adjust(key, piece, delta)
  local kind, mark, amount, epoch = piece[2], piece[3], piece[4], piece[5]
  if kind == 'c' then
    local start = numbers(key, 's')[1]
    if start == mark or (not start and redis.call('EXISTS', key) == 1) then
      redis.call('HINCRBY', key, 'u', whole(delta))
    end
  elseif kind == 'b' then
    local b = bucket(key)
    local drops = delta * DROPS
    if drops > 0 then
      b.poured = b.poured + drops
    elseif b.epoch ~= epoch then
      return
    else
      local ends = mark + amount * DROPS
      drops = -math.min(-drops, math.max(0, ends - math.max(mark, front(key, b))))
      if drops < 0 then
        b.holes[#b.holes + 1] = {ends + drops, -drops}
        table.sort(b.holes, function(x, y) return x[1] < y[1] end)
        while #b.holes > MOST_HOLES do table.remove(b.holes, 1) end
      end
    end
    b.level = b.level + drops
    keep_bucket(key, b)
  end
end

local function pieces_of() return cmsgpack.unpack(redis.call('HGET', KEYS[1], 'p')) end

local function keys_of()
  local found = {}
  for key in string.gmatch(redis.call('HGET', KEYS[1], 'k'), '[^\n]+') do found[#found + 1] = key end
  return found
end

-- Ends a reservation: its slots are free, its lease is gone, its end is known for a while. Where
-- events are `owed`, a day or until they are confirmed; its lease was to live as long, at least.
local function close(keys, note, known, owed)
  for _, piece in ipairs(pieces_of()) do
    if piece[2] == 's' then redis.call('ZREM', keys[piece[1]], id) end
  end
  redis.call('DEL', KEYS[1])
  if owed then
    redis.call('ZADD', KEYS[2], whole(now + GRACE), id)
    redis.call('HSET', KEYS[1], 'd', note, 'u', known)
    redis.call('PEXPIRE', KEYS[1], DAY)
  else
    redis.call('ZREM', KEYS[2], id)
    redis.call('HSET', KEYS[1], 'd', note)
    redis.call('PEXPIRE', KEYS[1], known)
  end
end

-- Keeps the lease: a day after it has passed, even a reservation that nobody claims is gone.
local function hold(expires)
  redis.call('PEXPIRE', KEYS[1], whole(expires - now + DAY))
  redis.call('ZADD', KEYS[2], whole(expires), id)
  redis.call('PEXPIRE', KEYS[2], whole(math.max(expires - now + DAY, redis.call('PTTL', KEYS[2]))))
end

-- Replaces what each piece took by its part of what was consumed.
local function spread(pieces, keys, left)
  local last = {}
  for number, piece in ipairs(pieces) do last[piece[1]] = number end
  for number, piece in ipairs(pieces) do
    local part = left[piece[1]] or 0
    if last[piece[1]] ~= number then part = math.min(part, piece[4]) end
    if left[piece[1]] then left[piece[1]] = left[piece[1]] - part end
    if part ~= piece[4] then adjust(keys[piece[1]], piece, part - piece[4]) end
  end
end

-- The meters that follow ARGV[at]: kind, limit, amount, start and end of the window.
local function meters_from(at)
  local meters, amounts = {}, {}
  for i = 3, #KEYS do
    meters[#meters + 1] = {key = KEYS[i], kind = ARGV[at], limit = tonumber(ARGV[at + 1]),
      start = tonumber(ARGV[at + 3]), ends = tonumber(ARGV[at + 4])}
    amounts[#amounts + 1] = tonumber(ARGV[at + 2])
    at = at + 5
  end
  return meters, amounts
end

-- Reads all meters. Returns an answer that ends the operation, or nothing, and the readings.
local function judge(meters, amounts, forced)
  local readings, unseeded, refused = {}, {'unseeded', whole(now)}, false
  for i, meter in ipairs(meters) do
    if meter.kind == 'c' and not (meter.start <= now and now < meter.ends) then
      return {'moved', whole(now)}
    end
    local reading = read(meter, amounts[i])
    if not reading then
      unseeded[#unseeded + 1] = whole(i - 1)
    else
      refused = refused or (amounts[i] > 0 and reading[1] + amounts[i] > meter.limit)
      for _, value in ipairs(reading) do readings[#readings + 1] = whole(value) end
    end
  end
  if forced then return nil, readings end
  if #unseeded > 2 then return unseeded end
  if refused then return {'refused', whole(now), unpack(readings)} end
  return nil, readings
end

-- An answer that names the reservations in a counter which must be seeded; nil if it is seeded.
local function restored(key)
  if redis.call('HEXISTS', key, 's') == 1 then return nil end
  local found = {'unseeded', whole(now)}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, #APART) == APART then found[#found + 1] = string.sub(field, #APART + 1) end
  end
  return found
end

if operation == 'restored' then
  return restored(KEYS[3]) or {'seeded', whole(now)}
end

if operation == 'seed' then
  -- start of the window, what the ledger knows apart from what was restored, and how many that
  -- were: if it is more by now, it must be asked again; "" takes what it said
  local found = restored(KEYS[3])
  if found and ARGV[6] ~= '' and tonumber(ARGV[6]) ~= #found - 2 then return {'moved', whole(now)} end
  if found then
    for i = 3, #found do redis.call('HDEL', KEYS[3], APART .. found[i]) end
    redis.call('HSET', KEYS[3], 's', ARGV[4])
    redis.call('HINCRBY', KEYS[3], 'u', ARGV[5])
  end
  return {'seeded', whole(now)}
end

if operation == 'confirm' then
  -- ids of closed reservations, KEYS[3..] in turn, whose events are on disk
  for i = 3, #KEYS do
    local v = numbers(KEYS[i], 'u', 'x')
    if v[1] then
      redis.call('HDEL', KEYS[i], 'u')
      redis.call('PEXPIRE', KEYS[i], whole(v[1]))
    end
    if not v[2] then redis.call('ZREM', KEYS[2], ARGV[i + 1]) end
  end
  return {'confirmed', whole(now)}
end

if operation == 'peek' then
  local meters, amounts = meters_from(6)
  local answer, readings = judge(meters, amounts)
  return answer or {'read', whole(now), unpack(readings)}
end

local expires = tonumber(redis.call('HGET', KEYS[1], 'x') or nil)

-- Takes more for a reservation, and has it last until `ends`; all of its slots are its own again
-- where they had passed, if `back`.
local function extend(meters, amounts, ends, back)
  local pieces, keys = pieces_of(), keys_of()
  for i, meter in ipairs(meters) do
    if amounts[i] > 0 then
      local mark, epoch = take(meter, amounts[i], ends)
      pieces[#pieces + 1] = {i, meter.kind, mark, amounts[i], epoch}
    end
  end
  for _, piece in ipairs(pieces) do
    if piece[2] == 's' and piece[4] > 0 then
      local key = keys[piece[1]]
      if back then
        redis.call('ZADD', key, whole(ends), id)
      else
        redis.call('ZADD', key, 'XX', whole(ends), id)
      end
      redis.call('PEXPIRE', key, whole(math.max(ends - now, redis.call('PTTL', key))))
    end
  end
  redis.call('HSET', KEYS[1], 'x', whole(ends), 'p', cmsgpack.pack(pieces))
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'n', ARGV[5]) end
  hold(ends)
  return {'held', whole(now)}
end

-- What a reservation lacks of amounts in all.
local function missing(amounts)
  for _, piece in ipairs(pieces_of()) do
    if amounts[piece[1]] then amounts[piece[1]] = amounts[piece[1]] - piece[4] end
  end
  for i in ipairs(amounts) do amounts[i] = math.max(amounts[i], 0) end
end

if operation == 'reserve' or operation == 'restore' then
  -- lease, note, then the meters
  local meters, amounts = meters_from(6)
  local forced, ends = operation == 'restore', now + tonumber(ARGV[4])
  if expires and forced then
    missing(amounts)
    return judge(meters, amounts, forced) or extend(meters, amounts, ends, true)
  end
  if redis.call('EXISTS', KEYS[1]) == 1 then return {'gone', whole(now)} end
  local answer, readings = judge(meters, amounts, forced)
  if answer then return answer end
  local pieces, keys = {}, {}
  for i, meter in ipairs(meters) do
    local mark, epoch = take(meter, amounts[i], ends)
    pieces[i] = {i, meter.kind, mark, amounts[i], epoch}
    keys[i] = meter.key
  end
  redis.call('HSET', KEYS[1], 'x', whole(ends), 'p', cmsgpack.pack(pieces),
    'k', table.concat(keys, '\n'), 'n', ARGV[5])
  hold(ends)
  return {'held', whole(now), unpack(readings)}
end

if operation == 'renew' then
  -- lease, note or "", then the meters with amounts in all, or none
  if not expires or expires <= now then return {'gone', whole(now)} end
  local meters, amounts = meters_from(6)
  missing(amounts)
  return judge(meters, amounts) or extend(meters, amounts, now + tonumber(ARGV[4]), false)
end

if operation == 'settle' then
  -- a note of its end, then the amounts that were consumed, by meter
  if not expires then return {'gone', whole(now)} end
  local keys, left = keys_of(), {}
  for i = 5, #ARGV do left[#left + 1] = tonumber(ARGV[i]) end
  spread(pieces_of(), keys, left)
  close(keys, ARGV[4], SETTLED, ARGV[4] ~= '')
  return {'settled', whole(now)}
end

if operation == 'void' then
  -- gives all back; if the reservation comes only after this, it is refused
  if expires then
    local keys = keys_of()
    spread(pieces_of(), keys, {})
    close(keys, '', SETTLED)
  elseif redis.call('HEXISTS', KEYS[1], 'u') == 0 then
    redis.call('HSETNX', KEYS[1], 'd', '')
    redis.call('PEXPIRE', KEYS[1], SETTLED)
  end
  return {'settled', whole(now)}
end

if operation == 'book' then
  -- a lease and a note that are not looked at, then the meters: what was consumed while this
  -- store was away. Whoever seeds a counter leaves this out of what the ledger tells.
  if redis.call('HGET', KEYS[1], 'd') == 'booked' then return {'gone', whole(now)} end
  local meters, amounts = meters_from(6)
  local moved = judge(meters, amounts, true)
  if moved then return moved end
  if expires then
    local keys = keys_of()
    spread(pieces_of(), keys, amounts)
    close(keys, 'booked', SETTLED)
    return {'settled', whole(now)}
  end
  for i, meter in ipairs(meters) do
    if meter.kind ~= 's' then take(meter, amounts[i], now) end
  end
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], id)
  redis.call('HSET', KEYS[1], 'd', 'booked')
  redis.call('PEXPIRE', KEYS[1], CLAIMED)
  return {'settled', whole(now)}
end

if operation == 'find' then
  if expires then
    return {'open', whole(now), redis.call('HGET', KEYS[1], 'n'), whole(math.max(0, expires - now))}
  end
  local note = redis.call('HGET', KEYS[1], 'd')
  if note == 'booked' then note = '' end
  if note then return {'closed', whole(now), note} end
  return {'gone', whole(now)}
end

if operation == 'claim' then
  -- a note of its end: ends a reservation whose lease has passed; what it reserved stays consumed
  if not expires then
    if redis.call('HEXISTS', KEYS[1], 'u') == 0 then redis.call('ZREM', KEYS[2], id) end
    return {'gone', whole(now)}
  end
  if expires > now then return {'held', whole(now)} end
  local note = redis.call('HGET', KEYS[1], 'n')
  close(keys_of(), ARGV[4], CLAIMED, ARGV[4] ~= '')
  return {'claimed', whole(now), note}
end

return redis.error_reply('no such operation')

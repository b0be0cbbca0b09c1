-- Counters of each kind: what they say, what is taken of them, what is changed later.

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
  if b.rate > 0 or b.level == 0 then
    local drains = b.level > 0 and math.ceil(b.level / b.rate) or 0
    redis.call('PEXPIRE', key, whole(drains + DAY))
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
    redis.call('PEXPIRE', meter.key, whole(math.min(meter.ends - now + DAY, IDLE)))
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

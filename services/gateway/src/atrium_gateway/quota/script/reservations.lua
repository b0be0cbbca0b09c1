-- A reservation: its pieces, its lease, and what is left of it once it is closed.

local expires = tonumber(redis.call('HGET', KEYS[1], 'x') or nil)

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

-- Replaces what each piece took by its part of what was consumed; of meters that were attached
-- and that the caller does not know of, what was reserved stays.
local function spread(pieces, keys, left)
  local last = {}
  for number, piece in ipairs(pieces) do last[piece[1]] = number end
  for number, piece in ipairs(pieces) do
    local rest = left[piece[1]]
    if rest then
      local part = last[piece[1]] == number and rest or math.min(rest, piece[4])
      left[piece[1]] = rest - part
      if part ~= piece[4] then adjust(keys[piece[1]], piece, part - piece[4]) end
    end
  end
end

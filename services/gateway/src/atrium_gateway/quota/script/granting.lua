-- What reserves, and what lets a reservation last and grow.

-- Takes more for a reservation, and has it last until `ends`; all of its slots are its own again
-- where they had passed, if `back`.
local function extend(meters, amounts, ends, back)
  local pieces, keys = pieces_of(), keys_of()
  if #meters > #keys then  -- attached to more, as its owner believes, and that never came here
    for i = #keys + 1, #meters do keys[i] = meters[i].key end
    redis.call('HSET', KEYS[1], 'k', table.concat(keys, '\n'))
  end
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

if operation == 'attach' then
  -- a lease that is not looked at, a note, then all meters with amounts in all: those beyond the
  -- ones that it has were set while it ran
  if not expires then return {'gone', whole(now)} end
  local meters, amounts = meters_from(6)
  local moved = judge(meters, amounts, true)
  if moved then return moved end
  local pieces, keys = pieces_of(), keys_of()
  for i = #keys + 1, #meters do
    local mark, epoch = take(meters[i], amounts[i], expires)
    pieces[#pieces + 1] = {i, meters[i].kind, mark, amounts[i], epoch}
    keys[i] = meters[i].key
  end
  redis.call('HSET', KEYS[1], 'p', cmsgpack.pack(pieces), 'k', table.concat(keys, '\n'),
    'n', ARGV[5])
  return {'held', whole(now)}
end

if operation == 'renew' then
  -- lease, note or "", then the meters with amounts in all, or none
  if not expires or expires <= now then return {'gone', whole(now)} end
  local meters, amounts = meters_from(6)
  missing(amounts)
  return judge(meters, amounts) or extend(meters, amounts, now + tonumber(ARGV[4]), false)
end

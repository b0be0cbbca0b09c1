-- What closes a reservation, and what is told of it.

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
    local keys, nothing = keys_of(), {}
    for i = 1, #keys do nothing[i] = 0 end
    spread(pieces_of(), keys, nothing)
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

if operation == 'find' then
  if expires then
    return {'open', whole(now), redis.call('HGET', KEYS[1], 'n'), whole(math.max(0, expires - now))}
  end
  local note = redis.call('HGET', KEYS[1], 'd')
  if note == 'booked' then note = '' end
  if note then return {'closed', whole(now), note} end
  return {'gone', whole(now)}
end

return redis.error_reply('no such operation')

-- Counters that begin with what the ledger knows.

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
    if redis.call('PTTL', KEYS[3]) < 0 then redis.call('PEXPIRE', KEYS[3], whole(IDLE)) end
  end
  return {'seeded', whole(now)}
end

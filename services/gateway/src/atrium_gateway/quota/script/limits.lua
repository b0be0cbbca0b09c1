-- All limits of a request together.

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

if operation == 'peek' then
  local meters, amounts = meters_from(6)
  local answer, readings = judge(meters, amounts)
  return answer or {'read', whole(now), unpack(readings)}
end

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
local FOREVER = 253402214400000
local DAY = 86400000
-- A counter that nobody took of for so long is forgotten, though its window has no end or is a
-- month: who needs it again seeds it.
local IDLE = 40 * DAY
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

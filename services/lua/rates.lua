-- Token buckets by the generic cell rate algorithm: of each only the time is kept at which it will be full again, and a
-- bucket that is full has no key. A bucket holds what may be spent in a minute.
local MINUTE = 60

local function full_at(bucket)
  -- A clock that was set back must not shut anybody out for as long.
  return math.max(NOW, math.min(tonumber(redis.call('GET', key.bucket(bucket.name)) or '0'), NOW + 60 * MINUTE))
end

-- Spends `amount` in every bucket {name, limit}, or in none. What is more than a whole bucket needs a full one, and
-- leaves it in debt. Answers the seconds to wait, 0 when it was spent, and for each bucket {limit, left, seconds until full}.
local function spend(buckets, amount)
  local wait, told = 0, {}
  for _, bucket in ipairs(buckets) do
    local full = full_at(bucket)
    local after = full + amount * MINUTE / bucket.limit
    if full > NOW and after > NOW + MINUTE then wait = math.max(wait, math.min(after - MINUTE, full) - NOW) end
  end
  for _, bucket in ipairs(buckets) do
    local full = full_at(bucket)
    if wait == 0 and amount > 0 then
      full = full + amount * MINUTE / bucket.limit
      -- A server whose disk is full refuses writes, and should still let results be read.
      redis.pcall('SET', key.bucket(bucket.name), stamp(full), 'PX', math.ceil((full - NOW) * 1000))
    end
    local left = math.max(0, math.floor(bucket.limit * (1 - (full - NOW) / MINUTE) + 1e-6))
    told[#told + 1] = {bucket.limit, left, stamp(full - NOW)}
  end
  return wait, told
end

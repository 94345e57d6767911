-- Files: their records. The bytes are a blob that is written before its record and removed after it; the set of ends
-- names each file whose bytes may lie there without one, so that the caretaker removes what a crash left.

local FILE_HOLD = 3600 -- seconds until the caretaker looks again at a file that was due while something read it

local function add_file(tenant, file)
  local k, member = key.file(tenant, file.id), tenant .. '|' .. file.id
  hold_room(tenant, k, file.bytes, file.owner, file.reservation)
  redis.call('HSET', k, 'filename', file.filename, 'bytes', file.bytes, 'purpose', file.purpose)
  redis.call('HSETNX', k, 'created', stamp(NOW))
  redis.call('ZADD', key.files(tenant), 'NX', stamp(NOW), file.id)
  if file.lasts then
    redis.call('HSET', k, 'expires', stamp(NOW + file.lasts))
    redis.call('ZADD', key.file_ends(), stamp(NOW + file.lasts), member)
  else
    redis.call('ZREM', key.file_ends(), member)
  end
end

-- While somebody holds a file it cannot be removed. False when there is none.
local function hold_file(tenant, id)
  if redis.call('EXISTS', key.file(tenant, id)) == 0 then return false end
  redis.call('HINCRBY', key.file(tenant, id), 'holds', 1)
  return true
end

local function release_file(tenant, id)
  if redis.call('EXISTS', key.file(tenant, id)) == 1 then redis.call('HINCRBY', key.file(tenant, id), 'holds', -1) end
end

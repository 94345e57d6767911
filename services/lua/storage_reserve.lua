-- Reserves room for bytes that are about to be written, so that those who write at once stay within the limits too.
-- ARGV[2] = JSON {tenant, owner, bytes, reservation, owner_limit?, tenant_limit?}. Answers 'reserved' or 'full'.
-- A reservation ends with the document's record (document_add), or by itself where the writer died.
local SECONDS = 600
local R = cjson.decode(ARGV[2])
local reserved = key.storing(R.tenant)
redis.call('ZREMRANGEBYSCORE', reserved, '-inf', stamp(NOW))
local sums = redis.call('HMGET', key.stored(R.tenant), 'all', 'key:' .. R.owner)
local all, own = tonumber(sums[1] or '0') + R.bytes, tonumber(sums[2] or '0') + R.bytes
for _, member in ipairs(redis.call('ZRANGE', reserved, 0, -1)) do
  local owner, bytes = string.match(member, '^([^|]*)|(%d+)|')
  all = all + tonumber(bytes)
  if owner == R.owner then own = own + tonumber(bytes) end
end
if R.tenant_limit and all > R.tenant_limit or R.owner_limit and own > R.owner_limit then return 'full' end
redis.call('ZADD', reserved, stamp(NOW + SECONDS), R.reservation)
redis.call('EXPIRE', reserved, SECONDS)
return 'reserved'

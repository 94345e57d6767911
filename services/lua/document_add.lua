-- Keeps the record of a document whose bytes are stored, and counts them for its key and its tenant.
-- ARGV[2] = JSON {tenant, id, name, bytes, matter, owner, reservation}. A document that is there takes the new name and
-- counts once, for the key that was first.
local D = cjson.decode(ARGV[2])
local k, stored = key.document(D.tenant, D.id), key.stored(D.tenant)
redis.call('ZREM', key.storing(D.tenant), D.reservation)
if redis.call('EXISTS', k) == 0 then
  redis.call('HINCRBY', stored, 'all', D.bytes)
  redis.call('HINCRBY', stored, 'key:' .. D.owner, D.bytes)
  redis.call('HSET', k, 'bytes', D.bytes, 'matter', D.matter, 'created', stamp(NOW), 'owner', D.owner)
  redis.call('ZADD', key.documents(D.tenant), stamp(NOW), D.id)
  if D.matter ~= '' then redis.call('ZADD', key.matter(D.tenant, D.matter), stamp(NOW), D.id) end
end
redis.call('HSET', k, 'name', D.name)

-- Takes out the record of a document, so that nothing can be kept under it any more, and what it counts.
-- ARGV[2] = JSON {tenant, id}. Answers the blobs of its outputs, or false where there is no such document.
local D = cjson.decode(ARGV[2])
local k, stored = key.document(D.tenant, D.id), key.stored(D.tenant)
local h = redis.call('HMGET', k, 'bytes', 'matter', 'owner')
if not h[1] then return false end
if h[3] then -- those of before this was counted have no owner
  for _, field in ipairs({'all', 'key:' .. h[3]}) do
    if redis.call('HINCRBY', stored, field, 0 - tonumber(h[1])) <= 0 then redis.call('HDEL', stored, field) end
  end
end
redis.call('DEL', k)
redis.call('ZREM', key.documents(D.tenant), D.id)
if h[2] and h[2] ~= '' then redis.call('ZREM', key.matter(D.tenant, h[2]), D.id) end
return redis.call('HVALS', key.outputs(D.tenant, D.id))

-- Takes out the record of a document, so that nothing can be kept under it any more, and frees its room.
-- ARGV[2] = JSON {tenant, id}. Answers the blobs of its outputs, or false where there is no such document.
local D = cjson.decode(ARGV[2])
local k = key.document(D.tenant, D.id)
local matter = redis.call('HGET', k, 'matter')
if not matter then return false end
free_room(D.tenant, D.id)
redis.call('DEL', k)
redis.call('ZREM', key.documents(D.tenant), D.id)
if matter ~= '' then redis.call('ZREM', key.matter(D.tenant, matter), D.id) end
return redis.call('HVALS', key.outputs(D.tenant, D.id))

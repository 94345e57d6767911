-- Records an upload: its name as given last, its matter as given first. ARGV[2] = JSON {tenant, id, name, bytes, matter}.
-- Answers {'added', the record}, or {'erasing', what} while the document or its matter is being erased.
local D = cjson.decode(ARGV[2])
local k = key.document(D.tenant, D.id)
local erasing = being_erased(D.tenant, D.id, D.matter)
if erasing then return {'erasing', erasing} end
redis.call('HSET', k, 'name', D.name, 'bytes', D.bytes)
redis.call('HSETNX', k, 'matter', D.matter)
redis.call('HSETNX', k, 'created', stamp(NOW))
local h = redis.call('HMGET', k, 'matter', 'created')
redis.call('ZADD', key.documents(D.tenant), 'NX', h[2], D.id)
if h[1] ~= '' then redis.call('ZADD', key.matter(D.tenant, h[1]), 'NX', h[2], D.id) end
return {'added', redis.call('HGETALL', k)}

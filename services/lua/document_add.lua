-- Keeps the record of a document whose bytes are stored: its name as given last, what else it is as given first.
-- ARGV[2] = JSON {tenant, id, name, bytes, matter, owner, reservation}.
-- Answers {'added', the record}, or {'erasing', what} while the document or its matter is being erased.
local D = cjson.decode(ARGV[2])
local k = key.document(D.tenant, D.id)
local erasing = being_erased(D.tenant, D.id, D.matter)
if erasing then return {'erasing', erasing} end
hold_room(D.tenant, k, D.bytes, D.owner, D.reservation)
redis.call('HSET', k, 'name', D.name, 'bytes', D.bytes)
redis.call('HSETNX', k, 'matter', D.matter)
redis.call('HSETNX', k, 'created', stamp(NOW))
local created = redis.call('HGET', k, 'created')
redis.call('ZADD', key.documents(D.tenant), 'NX', created, D.id)
if D.matter ~= '' then redis.call('ZADD', key.matter(D.tenant, D.matter), 'NX', created, D.id) end
return {'added', redis.call('HGETALL', k)}

-- Registers an output under its document, with which it goes, unless the document is gone.
-- ARGV[2] = JSON {tenant, document, version, blob}. Answers 1, or 0 when there is no such document.
local K = cjson.decode(ARGV[2])
if redis.call('EXISTS', key.document(K.tenant, K.document)) == 0 then return 0 end
local outputs = key.outputs(K.tenant, K.document)
local before = redis.call('HGET', outputs, K.version)
-- What it takes the place of stays readable for jobs under way, and goes with the document too.
if before and before ~= K.blob then redis.call('HSET', outputs, 'replaced:' .. before, before) end
redis.call('HSET', outputs, K.version, K.blob)
return 1

-- Registers an output under its document, unless the document is gone.
-- ARGV[2] = JSON {tenant, document, version, blob}. Answers 1, or 0 when there is no such document.
local K = cjson.decode(ARGV[2])
if redis.call('EXISTS', key.document(K.tenant, K.document)) == 0 then return 0 end
redis.call('HSET', key.outputs(K.tenant, K.document), K.version, K.blob)
return 1

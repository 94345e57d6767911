-- Registers a job's result under a document that it is about or quotes, unless the document is gone. It is kept there
-- for `seconds`, as long as a record may name it. ARGV[2] = JSON {tenant, document, job, blob, seconds}.
-- Answers 1, or 0 when there is no such document.
local K = cjson.decode(ARGV[2])
if redis.call('EXISTS', key.document(K.tenant, K.document)) == 0 then return 0 end
local results = key.results(K.tenant, K.document)
redis.call('ZREMRANGEBYSCORE', results, '-inf', stamp(NOW))
redis.call('ZADD', results, stamp(NOW + K.seconds), K.job .. '|' .. K.blob)
redis.call('EXPIRE', results, K.seconds)
return 1

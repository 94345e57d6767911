-- Registers a job's result under the documents that it is about or quotes, unless one of them is gone. It is kept there
-- for `seconds`, as long as a record may name it. ARGV[2] = JSON {tenant, documents, job, blob, seconds}.
-- Answers 1, or 0 when there is no such document: then it is registered under none.
local K = cjson.decode(ARGV[2])
for _, document in ipairs(K.documents) do
  if redis.call('EXISTS', key.document(K.tenant, document)) == 0 then return 0 end
end
for _, document in ipairs(K.documents) do
  local results = key.results(K.tenant, document)
  redis.call('ZREMRANGEBYSCORE', results, '-inf', stamp(NOW))
  redis.call('ZADD', results, stamp(NOW + K.seconds), K.job .. '|' .. K.blob)
  redis.call('EXPIRE', results, K.seconds)
end
return 1

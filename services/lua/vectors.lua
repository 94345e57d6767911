-- Notes which blob holds the vectors of texts, unless their document is gone.
-- ARGV[2] = JSON {tenant, document, blob, texts: [key, …], limit, seconds}. Answers 1, or 0 when there is no such document.
-- Two generations bound it: a full one replaces the one before, so at most twice the limit is known, the newest of it.
local K = cjson.decode(ARGV[2])
if redis.call('EXISTS', key.document(K.tenant, K.document)) == 0 then return 0 end
local current, before = key.vectors(K.tenant), key.vectors_before(K.tenant)
for _, text in ipairs(K.texts) do
  if redis.call('HLEN', current) >= K.limit and redis.call('HEXISTS', current, text) == 0 then
    redis.call('RENAME', current, before)
    redis.call('EXPIRE', before, K.seconds)
  end
  redis.call('HSET', current, text, K.blob)
end
redis.call('EXPIRE', current, K.seconds)
return 1

-- Registers an endpoint. ARGV[2] = JSON {tenant, id, fields, most}. Safe to repeat with the same id.
-- Answers {'added'}, {'exists', the one with this URL} or {'full'}.
local W = cjson.decode(ARGV[2])
local names = redis.call('SMEMBERS', key.webhooks(W.tenant))
for _, id in ipairs(names) do
  if id == W.id then return {'added'} end
  if redis.call('HGET', key.webhook(W.tenant, id), 'url') == W.fields.url then return {'exists', id} end
end
if #names >= W.most then return {'full'} end
for name, value in pairs(W.fields) do redis.call('HSET', key.webhook(W.tenant, W.id), name, value) end
redis.call('HSET', key.webhook(W.tenant, W.id), 'created', stamp(NOW))
redis.call('SADD', key.webhooks(W.tenant), W.id)
return {'added'}

-- Sends an endpoint a message that tells of nothing. ARGV[2] = JSON {tenant, webhook, event, nonce, request_id}.
-- Safe to repeat with the same nonce. Answers {'sent', id}, {'disabled'} or {'missing'}.
local D = cjson.decode(ARGV[2])
local h = redis.call('HMGET', key.webhook(D.tenant, D.webhook), 'url', 'disabled')
if not h[1] then return {'missing'} end
if (h[2] or '') ~= '' then return {'disabled'} end
redis.call('SADD', key.tenants(), D.tenant)
return {'sent', deliver(D.tenant, D.webhook, {event = D.event, subject = '', life = D.nonce}, 'high', D.request_id)}

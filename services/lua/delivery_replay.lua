-- Sends a delivery again that has ended, under its own id. ARGV[2] = JSON {tenant, webhook, id}.
-- Answers 'replayed', 'missing', or the state that does not allow it.
local D = cjson.decode(ARGV[2])
local k = key.job(D.tenant, D.id)
local h = redis.call('HMGET', k, 'state', 'input')
if not is_delivery(D.id) or not h[1] or cjson.decode(h[2]).webhook ~= D.webhook then return 'missing' end
if redis.call('EXISTS', key.webhook(D.tenant, D.webhook)) == 0 then return 'missing' end
if h[1] == 'queued' or h[1] == 'running' or h[1] == 'scheduled' then return h[1] end
revive(D.tenant, D.id)
redis.call('ZADD', key.deliveries(D.tenant, D.webhook), 'NX', stamp(NOW), D.id)
enqueue(D.tenant, D.id)
return 'replayed'

-- Changes an endpoint. ARGV[2] = JSON {tenant, id, action: disable, enable, rotate or remove, reason?, secret?, grace?}.
-- Each is safe to repeat. Answers {'changed', the record}, as it was before a removal, or {'missing'}.
local W = cjson.decode(ARGV[2])
local k = key.webhook(W.tenant, W.id)
local h = redis.call('HMGET', k, 'url', 'disabled', 'secret')
if not h[1] then return {'missing'} end
if W.action == 'disable' then
  if (h[2] or '') == '' then redis.call('HSET', k, 'disabled', stamp(NOW), 'reason', W.reason) end
elseif W.action == 'enable' then
  redis.call('HDEL', k, 'disabled', 'reason')
elseif W.action == 'rotate' then
  if h[3] ~= W.secret then
    redis.call('HSET', k, 'old_secret', h[3], 'old_until', stamp(NOW + W.grace), 'secret', W.secret)
  end
elseif W.action == 'remove' then
  local record = redis.call('HGETALL', k)
  redis.call('SREM', key.webhooks(W.tenant), W.id)
  redis.call('DEL', k, key.deliveries(W.tenant, W.id))
  return {'changed', record}
end
return {'changed', redis.call('HGETALL', k)}

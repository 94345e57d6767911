-- Steers a run. ARGV[2] = JSON {tenant, id, action}: seal, pause, resume, or retry of what did not succeed.
-- Each is safe to repeat. Answers {'done', the record}, {'closed', state} or {'missing'}.
local R = cjson.decode(ARGV[2])
local k = key.job(R.tenant, R.id)
local h = redis.call('HMGET', k, 'state', 'template', 'sealed', 'cancel', 'phase', 'erased')
if not h[2] or h[5] or h[6] then return {'missing'} end
local live = h[1] == 'waiting' or h[1] == 'scheduled'
if R.action == 'seal' then
  if live then seal(R.tenant, R.id) end
elseif R.action == 'retry' then
  if h[4] and h[4] ~= '' and live then return {'closed', 'cancelling'} end
  local items = redis.call('HGETALL', key.run_items(R.tenant, R.id))
  local again = {}
  for i = 1, #items, 2 do
    local state = cjson.decode(items[i + 1]).state
    if state == 'failed' or state == 'cancelled' or state == 'expired' then again[#again + 1] = items[i] end
  end
  if #again > 0 then
    reopen(R.tenant, R.id)
    for _, document in ipairs(again) do await_again(R.tenant, R.id, document) end
    fill(R.tenant, R.id)
  end
elseif not live then
  return {'closed', h[1]}
elseif R.action == 'pause' then
  redis.call('HSET', k, 'paused', '1')
  say(R.tenant, R.id, 'paused', {})
else
  redis.call('HDEL', k, 'paused')
  redis.call('HSET', k, 'last_end', stamp(NOW))
  say(R.tenant, R.id, 'resumed', {})
  fill(R.tenant, R.id)
end
return {'done', redis.call('HGETALL', k)}

-- Accepts a job: idempotency, limits, record, backlog entry, event and ticket, or nothing of it.
-- ARGV[2] = JSON {fields, plan?, idempotency_key?, payload_hash?, limits = {lane, tenant, bytes}, not_before?, expires?}
-- Safe to repeat with the same id. Answers {'accepted' | 'repeated', the record} or {'conflict' | 'full', why}.
local S = cjson.decode(ARGV[2])
local F = S.fields
local k = key.job(F.tenant, F.id)
if redis.call('EXISTS', k) == 1 then return {'accepted', redis.call('HGETALL', k)} end
if S.idempotency_key then
  local seen = redis.call('GET', key.idempotency(F.tenant, S.idempotency_key))
  if seen then
    local id, hash = split(seen)
    if hash ~= S.payload_hash then return {'conflict', id} end
    return {'repeated', redis.call('HGETALL', key.job(F.tenant, id))}
  end
end
local depth = 0
for _, device in ipairs({'any', 'cpu', 'gpu'}) do depth = depth + waiting(F.lane, device) end
local own = redis.call('HMGET', key.waiting(), F.lane .. '|' .. F.tenant, F.lane .. '|' .. F.tenant .. '|bytes')
if depth >= S.limits.lane then return {'full', 'the lane has ' .. depth .. ' jobs waiting'} end
if tonumber(own[1] or '0') >= S.limits.tenant then return {'full', own[1] .. ' jobs of this tenant wait in the lane'} end
if tonumber(own[2] or '0') + tonumber(F.bytes) > S.limits.bytes then
  return {'full', (own[2] or '0') .. ' bytes of input of this tenant wait in the lane'}
end
if S.idempotency_key then
  redis.call('SET', key.idempotency(F.tenant, S.idempotency_key), F.id .. '|' .. S.payload_hash, 'EX', 86400)
end
for name, value in pairs(F) do redis.call('HSET', k, name, value) end
redis.call('HSET', k, 'created', stamp(NOW), 'attempt', '0')
if S.plan then redis.call('HSET', k, 'plan', S.plan) end
redis.call('ZADD', key.jobs(F.tenant), stamp(NOW), F.id)
redis.call('SADD', key.tenants(), F.tenant)
redis.call('HINCRBY', key.counters(), 'jobs.submitted', 1)
if S.expires then redis.call('ZADD', key.expiries(), stamp(S.expires), F.tenant .. '|' .. F.id) end
if S.not_before and S.not_before > NOW then
  redis.call('HSET', k, 'state', 'scheduled')
  redis.call('ZADD', key.scheduled(), stamp(S.not_before), F.tenant .. '|' .. F.id)
  emit(F.tenant, F.id, 'scheduled', {state = 'scheduled', due = stamp(S.not_before)})
else
  local state = S.plan and 'waiting' or 'queued'
  emit(F.tenant, F.id, state, {state = state})
  begin(F.tenant, F.id)
end
return {'accepted', redis.call('HGETALL', k)}

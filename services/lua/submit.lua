-- Accepts a job: idempotency, limits, record, backlog entry, event and ticket, or nothing of it.
-- ARGV[2] = JSON {fields, idempotency_key?, payload_hash?, limits = {lane, tenant, bytes}, not_before?, expires?}
-- Safe to repeat with the same id. Answers {'accepted' | 'repeated', the record} or {'conflict' | 'full' | 'gone' | 'erasing', why}.
local S = cjson.decode(ARGV[2])
local F = S.fields
local k = key.job(F.tenant, F.id)
if redis.call('EXISTS', k) == 1 then return {'accepted', redis.call('HGETALL', k)} end
local before = repeated(S, F.tenant)
if before then return before end
local refused = barred(F)
if refused then return refused end
local depth = 0
for _, device in ipairs({'any', 'cpu', 'gpu'}) do depth = depth + waiting(F.lane, device) end
local own = redis.call('HMGET', key.waiting(), F.lane .. '|' .. F.tenant, F.lane .. '|' .. F.tenant .. '|bytes')
if depth >= S.limits.lane then return {'full', 'the lane has ' .. depth .. ' jobs waiting'} end
if tonumber(own[1] or '0') >= S.limits.tenant then return {'full', own[1] .. ' jobs of this tenant wait in the lane'} end
if tonumber(own[2] or '0') + tonumber(F.bytes) > S.limits.bytes then
  return {'full', (own[2] or '0') .. ' bytes of input of this tenant wait in the lane'}
end
remember(S, F.tenant, F.id)
create(S, key.jobs(F.tenant))
return {'accepted', redis.call('HGETALL', k)}

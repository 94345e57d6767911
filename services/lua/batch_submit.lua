-- Accepts a batch: record, index, hold on its file and the step that checks it, or nothing of it.
-- ARGV[2] = JSON {fields, lasts, limits, token_bytes, idempotency_key?, payload_hash?}; `lasts`: seconds until it expires.
-- Safe to repeat with the same id. Answers {'accepted' | 'repeated', the record}, {'conflict', id}, {'missing', file} or
-- {'full', as run_limits says}.
local S = cjson.decode(ARGV[2])
local F = S.fields
local k = key.job(F.tenant, F.id)
local before = accepted_before(S)
if before then return before end
local bytes = redis.call('HGET', key.file(F.tenant, F.file), 'bytes') or '0'
F.tokens = string.format('%d', math.floor(tonumber(bytes) / S.token_bytes))
local full = overfull(F.tenant, F.owner, tonumber(F.tokens), S.limits)
if full then return full end
if not hold_file(F.tenant, F.file) then return {'missing', F.file} end
remember(S, F.tenant, F.id)
S.expires = NOW + S.lasts
F.expires_at = stamp(S.expires)
create(S, key.batches(F.tenant))
return {'accepted', redis.call('HGETALL', k)}

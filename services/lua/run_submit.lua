-- Accepts a run: record, index and, for a run over a matter, its documents, or nothing of it.
-- ARGV[2] = JSON {fields, limits?, documents, idempotency_key?, payload_hash?, not_before?, expires?, schedule?, due?,
-- next?}; so many `documents` follow. With a schedule the run is the one of its time `due`, and `next` the schedule's
-- next time, '' for none. Safe to repeat with the same id.
-- Answers {'accepted' | 'repeated', the record}, {'conflict' | 'past' | 'erasing', why} or {'full', as run_limits says}.
local S = cjson.decode(ARGV[2])
local F = S.fields
local k = key.job(F.tenant, F.id)
local before = accepted_before(S)
if before then return before end
local refused = barred(F)
if refused then return refused end
F.expected = F.source == 'matter' and redis.call('ZCARD', key.matter(F.tenant, F.matter)) or S.documents
if S.limits then
  local full = overfull(F.tenant, F.owner, F.expected * tonumber(F.tokens_each), S.limits)
  if full then return full end
end
if S.schedule then
  if not pass(F.tenant, S.schedule, S.due, S.next) then return {'past', S.due} end
  redis.call('HSET', key.schedule(F.tenant, S.schedule), 'last_run', F.id, 'last_due', S.due)
end
remember(S, F.tenant, F.id)
create(S, key.runs(F.tenant))
if F.source ~= 'matter' then leave_open(F.tenant, F.id) end
return {'accepted', redis.call('HGETALL', k)}

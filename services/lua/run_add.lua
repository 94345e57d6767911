-- Adds documents to a run that is open. ARGV[2] = JSON {tenant, id, documents, most, limits?}. Safe to repeat. Answers
-- {'added', the record}, {'unknown', document…}, {'many'}, {'full', as run_limits says}, {'closed', state} or {'missing'}.
local A = cjson.decode(ARGV[2])
local k = key.job(A.tenant, A.id)
local h = redis.call('HMGET', k, 'state', 'sealed', 'template', 'cancel', 'total', 'phase', 'owner', 'tokens_each')
if not h[3] or h[6] then return {'missing'} end
if h[2] or (h[1] ~= 'waiting' and h[1] ~= 'scheduled') or (h[4] and h[4] ~= '') then
  return {'closed', h[2] and 'sealed' or h[1]}
end
if tonumber(h[5] or '0') + #A.documents > A.most then return {'many'} end
local unknown, fresh = {'unknown'}, 0
for _, document in ipairs(A.documents) do
  if not has_document(A.tenant, A.id, document) then fresh = fresh + 1 end
  if redis.call('EXISTS', key.document(A.tenant, document)) == 0 then unknown[#unknown + 1] = document end
end
if #unknown > 1 then return unknown end
local full = A.limits and overfull(A.tenant, h[7], fresh * tonumber(h[8] or '0'), A.limits)
if full then return full end
add_documents(A.tenant, A.id, A.documents)
leave_open(A.tenant, A.id)
fill(A.tenant, A.id)
return {'added', redis.call('HGETALL', k)}

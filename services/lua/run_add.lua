-- Adds documents to a run that is open. ARGV[2] = JSON {tenant, id, documents, most, limits}; the limit of the key that
-- made the run is in the record. Safe to repeat; who is refused for now has shown to be there, so the run stays open.
-- Answers {'added', the record}, {'unknown', document…}, {'many'}, {'full', as run_limits says}, {'closed', state} or
-- {'missing'}.
local A = cjson.decode(ARGV[2])
local k = key.job(A.tenant, A.id)
local h = redis.call('HMGET', k, 'state', 'sealed', 'template', 'cancel', 'total', 'phase', 'owner', 'tokens_each',
  'expected', 'owner_limit')
if not h[3] or h[6] then return {'missing'} end
if h[2] or (h[1] ~= 'waiting' and h[1] ~= 'scheduled') or (h[4] and h[4] ~= '') then
  return {'closed', h[2] and 'sealed' or h[1]}
end
leave_open(A.tenant, A.id)
local total = tonumber(h[5] or '0')
local unknown, fresh = {'unknown'}, 0
for _, document in ipairs(A.documents) do
  if not has_document(A.tenant, A.id, document) then -- one that it has may be deleted since
    fresh = fresh + 1
    if redis.call('EXISTS', key.document(A.tenant, document)) == 0 then unknown[#unknown + 1] = document end
  end
end
if total + fresh > A.most then return {'many'} end
if #unknown > 1 then return unknown end
local more = documents_counted(total + fresh, h[9]) - documents_counted(total, h[9])
A.limits.key = tonumber(h[10] or '')
local full = overfull(A.tenant, h[7], more * tonumber(h[8] or '0'), A.limits)
if full then return full end
add_documents(A.tenant, A.id, A.documents)
fill(A.tenant, A.id)
return {'added', redis.call('HGETALL', k)}

-- Adds lines that the check found good; they begin when it has ended.
-- ARGV[2] = JSON {tenant, id, step, attempt, lines, model}. Safe to repeat. Answers 1, or 0 for a stale attempt.
local A = cjson.decode(ARGV[2])
if not holds(A) then return 0 end
local k = key.job(A.tenant, A.id)
local template = cjson.decode(redis.call('HGET', k, 'template'))
template.model = A.model
redis.call('HSET', k, 'template', cjson.encode(template), 'model', A.model)
add_documents(A.tenant, A.id, A.lines)
return 1

-- Appends progress or tokens to a job's stream, a step's to its parent's, while the attempt holds its claim.
-- ARGV[2] = JSON {tenant, id, attempt, event, data}; data is a JSON text. Answers 1, or 0 for a stale attempt.
local A = cjson.decode(ARGV[2])
local h = redis.call('HMGET', key.job(A.tenant, A.id), 'state', 'attempt', 'parent')
if h[1] ~= 'running' or h[2] ~= A.attempt then return 0 end
local root = h[3] and h[3] ~= '' and h[3] or A.id
redis.call('XADD', key.events(A.tenant, root), '*', 'event', A.event, 'data', A.data)
return 1

-- Appends progress or tokens to a job's stream, and to its parent's, while the attempt holds its claim.
-- ARGV[2] = JSON {tenant, id, attempt, event, data}; data is a JSON text. Answers 1, or 0 for a stale attempt.
local A = cjson.decode(ARGV[2])
local h = redis.call('HMGET', key.job(A.tenant, A.id), 'state', 'attempt', 'parent')
if h[1] ~= 'running' or h[2] ~= A.attempt then return 0 end
redis.call('XADD', key.events(A.tenant, A.id), '*', 'event', A.event, 'data', A.data)
if h[3] and h[3] ~= '' then redis.call('XADD', key.events(A.tenant, h[3]), '*', 'event', A.event, 'data', A.data) end
return 1

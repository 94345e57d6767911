-- Gives a job that failed, was cancelled or expired a new life; a parent goes on with the step that ended it.
-- A document of a run goes back to its place in the run, and reopens one that has ended for itself alone.
-- ARGV[2] = JSON {tenant, id, asked?}; `asked` only asks whether it would be. Answers 'replayed', 'missing', 'step', or the
-- state that does not allow it.
local R = cjson.decode(ARGV[2])
local k = key.job(R.tenant, R.id)
local h = redis.call('HMGET', k, 'state', 'parent', 'run', 'document', 'template', 'batch', 'erased')
if not h[1] or h[5] or h[6] or h[7] or is_delivery(R.id) then return 'missing' end
if h[1] ~= 'failed' and h[1] ~= 'cancelled' and h[1] ~= 'expired' then return h[1] end
if h[2] and h[2] ~= '' then return 'step' end
local run = h[3] and redis.call('HMGET', key.job(R.tenant, h[3]), 'state', 'cancel') or {}
if run[1] == 'waiting' and run[2] and run[2] ~= '' then return 'part of a run that is being cancelled' end
if R.asked then return 'replayed' end
if run[1] then
  reopen(R.tenant, h[3])
  await_again(R.tenant, h[3], h[4])
  fill(R.tenant, h[3])
else
  redis.call('ZADD', key.jobs(R.tenant), 'NX', stamp(NOW), R.id)
  live_again(R.tenant, R.id)
end
return 'replayed'

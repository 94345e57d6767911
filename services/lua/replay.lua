-- Gives a job that failed, was cancelled or expired a new life; a parent goes on with the step that ended it.
-- ARGV[2] = JSON {tenant, id}. Answers 'replayed', 'missing', or the state that does not allow it.
local R = cjson.decode(ARGV[2])

local function revive(id)
  local k = key.job(R.tenant, id)
  redis.call('PERSIST', k)
  redis.call('HDEL', k, 'finished', 'started', 'problem', 'result', 'cancel', 'score', 'queued', 'worker', 'released')
  -- Numbers of attempts go on, so that an end from an earlier life cannot touch this one.
  redis.call('HSET', k, 'released', redis.call('HGET', k, 'attempt'))
  redis.call('HINCRBY', k, 'replays', 1)
  -- Followers read a stream to its terminal event, so the new life has a stream of its own.
  redis.call('DEL', key.events(R.tenant, id))
end

local k = key.job(R.tenant, R.id)
local h = redis.call('HMGET', k, 'state', 'current', 'plan', 'parent')
if not h[1] then return 'missing' end
if h[1] ~= 'failed' and h[1] ~= 'cancelled' and h[1] ~= 'expired' then return h[1] end
if h[4] and h[4] ~= '' then return 'step' end
revive(R.id)
redis.call('ZREM', key.dead(R.tenant), R.id)
redis.call('ZADD', key.jobs(R.tenant), 'NX', stamp(NOW), R.id)
redis.call('HINCRBY', key.counters(), 'replays', 1)
local state = h[3] and 'waiting' or 'queued'
redis.call('HSET', k, 'state', state)
emit(R.tenant, R.id, state, {state = state, reason = 'replay'})
if not h[3] then
  enqueue(R.tenant, R.id)
elseif not h[2] then
  begin(R.tenant, R.id)
elseif redis.call('EXISTS', key.job(R.tenant, h[2])) == 1 then
  revive(h[2])
  emit(R.tenant, h[2], 'queued', {reason = 'replay'})
  enqueue(R.tenant, h[2])
else
  for _, step in ipairs(cjson.decode(h[3])) do
    if R.id .. '.' .. step.name == h[2] then create_step(R.tenant, R.id, step) end
  end
end
return 'replayed'

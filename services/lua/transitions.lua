-- The transitions that several scripts need; each keeps record, backlog, counts and events in step.

-- What waits, by lane and tenant: jobs and bytes of input, for the limits at submission.
local function account(lane, tenant, jobs, bytes)
  local field = lane .. '|' .. tenant
  if redis.call('HINCRBY', key.waiting(), field, jobs) == 0 then redis.call('HDEL', key.waiting(), field) end
  field = field .. '|bytes'
  if redis.call('HINCRBY', key.waiting(), field, bytes) == 0 then redis.call('HDEL', key.waiting(), field) end
end

-- Puts a job into its backlog. A first entry takes the tenant's virtual time (start-time fair queuing);
-- a job that comes back keeps the score it had, so that a crash does not send it to the end.
local function enqueue(tenant, id)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'lane', 'device', 'priority', 'cost', 'score', 'bytes')
  local lane, device, priority, score = h[1], h[2], h[3], h[5]
  if not score then
    local clock = key.clock(lane, priority)
    local start = math.max(NOW, tonumber(redis.call('HGET', clock, tenant) or '0'))
    redis.call('HSET', clock, tenant, stamp(start + tonumber(h[4])))
    score = stamp(start)
    redis.call('HSET', k, 'score', score, 'queued', stamp(NOW))
  end
  redis.call('HSET', k, 'state', 'queued')
  redis.call('ZADD', key.backlog(lane, device, priority), score, tenant .. '|' .. id)
  account(lane, tenant, 1, tonumber(h[6] or '0'))
  wake(lane, device, priority == 'critical' or priority == 'high')
end

-- Takes a job out of its backlog; false when it was not there.
local function leave(tenant, id)
  local h = redis.call('HMGET', key.job(tenant, id), 'lane', 'device', 'priority', 'bytes')
  if not h[1] or redis.call('ZREM', key.backlog(h[1], h[2], h[3]), tenant .. '|' .. id) == 0 then return false end
  account(h[1], tenant, -1, 0 - tonumber(h[4] or '0')) -- not a negation: -0 is no integer to the server
  return true
end

-- The one way into a final state: exactly one terminal event, and an end to the record's life.
local function conclude(tenant, id, state, result, problem)
  local k = key.job(tenant, id)
  redis.call('HSET', k, 'state', state, 'finished', stamp(NOW), 'result', result, 'problem', problem)
  local data = {state = state}
  if problem ~= '' then data.problem = cjson.decode(problem) end
  emit(tenant, id, state, data)
  redis.call('ZREM', key.expiries(), tenant .. '|' .. id)
  redis.call('HINCRBY', key.counters(), 'jobs.' .. state, 1)
  redis.call('EXPIRE', k, O.result_ttl)
  redis.call('EXPIRE', key.events(tenant, id), O.result_ttl)
end

-- `cancel` of a record is '' while nobody asked, else the state in which the job shall end.
local function wanted_end(cancel)
  return cancel == 'expired' and 'expired' or 'cancelled'
end

local function create_step(tenant, parent, step)
  local id = parent .. '.' .. step.name
  local h = redis.call('HMGET', key.job(tenant, parent), 'type', 'priority', 'input', 'matter', 'request_id')
  redis.call('HSET', key.job(tenant, id), 'tenant', tenant, 'id', id, 'type', h[1], 'task', step.task,
    'lane', step.lane, 'device', step.device, 'priority', h[2], 'cost', step.cost, 'model', step.model,
    'input', h[3], 'matter', h[4] or '', 'request_id', h[5] or '', 'parent', parent, 'step', step.name,
    'attempt', '0', 'created', stamp(NOW))
  redis.call('HSET', key.job(tenant, parent), 'state', 'waiting', 'current', id)
  emit(tenant, parent, 'step', {step = step.name, state = 'queued'})
  enqueue(tenant, id)
end

-- A job may run now: into its backlog, or for a parent its first step.
local function begin(tenant, id)
  local plan = redis.call('HGET', key.job(tenant, id), 'plan')
  if plan then create_step(tenant, id, cjson.decode(plan)[1]) else enqueue(tenant, id) end
end

-- Called when a step of `parent` succeeded: starts the next one, or ends the parent with the last result.
local function advance(tenant, parent, name, result)
  local k = key.job(tenant, parent)
  local h = redis.call('HMGET', k, 'state', 'plan', 'cancel')
  if h[1] ~= 'waiting' then return end
  redis.call('HSET', k, 'out:' .. name, result)
  emit(tenant, parent, 'step', {step = name, state = 'succeeded'})
  if h[3] and h[3] ~= '' then conclude(tenant, parent, wanted_end(h[3]), '', '') return end
  local plan = cjson.decode(h[2])
  for i, step in ipairs(plan) do
    if step.name == name then
      if plan[i + 1] then create_step(tenant, parent, plan[i + 1])
      else conclude(tenant, parent, 'succeeded', result, '') end
      return
    end
  end
end

-- A job ends without success; a parent ends with its step.
local function give_up(tenant, id, state, problem)
  local h = redis.call('HMGET', key.job(tenant, id), 'parent', 'step')
  local parent = h[1] and h[1] ~= '' and h[1] or nil
  conclude(tenant, id, state, '', problem)
  if state == 'failed' then redis.call('ZADD', key.dead(tenant), stamp(NOW), parent or id) end
  if parent and redis.call('HGET', key.job(tenant, parent), 'state') == 'waiting' then
    emit(tenant, parent, 'step', {step = h[2], state = state})
    conclude(tenant, parent, state, '', problem)
  end
end

-- Asks for an end of a job in `state` (cancelled or expired): at once while it waits, at its next step while it runs,
-- a parent through its current step. Answers the state, 'cancelling' or 'missing'.
local function stop(tenant, id, state)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'state', 'current')
  local now = h[1]
  if not now then return 'missing' end
  if now == 'queued' then
    leave(tenant, id)
    give_up(tenant, id, state, '')
    return state
  elseif now == 'scheduled' then
    redis.call('ZREM', key.scheduled(), tenant .. '|' .. id)
    give_up(tenant, id, state, '')
    return state
  elseif now == 'running' then
    redis.call('HSET', k, 'cancel', state)
    return 'cancelling'
  elseif now == 'waiting' then
    redis.call('HSET', k, 'cancel', state)
    return stop(tenant, h[2], state)
  end
  return now
end

-- Executions that count towards the limit: those that were not handed back.
local function tries(k)
  local h = redis.call('HMGET', k, 'attempt', 'released')
  return tonumber(h[1]) - tonumber(h[2] or '0')
end

-- Fenced end of one execution. Answers 1 if it counted, 0 if the attempt had lost its claim.
local function complete(c)
  local k = key.job(c.tenant, c.id)
  local h = redis.call('HMGET', k, 'state', 'attempt', 'parent', 'step', 'cancel', 'lane', 'started')
  redis.call('ZREM', key.leases(), c.tenant .. '|' .. c.id .. '|' .. c.attempt)
  if h[1] ~= 'running' or h[2] ~= c.attempt then
    redis.call('HINCRBY', key.counters(), 'stale_results', 1)
    return 0
  end
  local cancel = h[5] or ''
  if c.outcome == 'succeeded' then
    local before = tonumber(redis.call('HGET', key.service(), h[6]) or 'nan')
    local took = NOW - tonumber(h[7])
    redis.call('HSET', key.service(), h[6], stamp(before == before and 0.9 * before + 0.1 * took or took))
    conclude(c.tenant, c.id, 'succeeded', c.result, '')
    if h[3] and h[3] ~= '' then advance(c.tenant, h[3], h[4], c.result) end
  elseif c.outcome == 'cancelled' or cancel ~= '' then
    give_up(c.tenant, c.id, wanted_end(cancel), '')
  elseif c.outcome == 'released' then
    -- Handed back before it ran to an end (a worker that drains). The attempt's number is used up, so that a repeat
    -- of this very end cannot touch the next one; it does not count towards the limit.
    redis.call('HINCRBY', k, 'released', 1)
    emit(c.tenant, c.id, 'queued', {reason = 'released'})
    enqueue(c.tenant, c.id)
  elseif c.outcome == 'retry' and tries(k) < tonumber(O.max_attempts) then
    redis.call('HSET', k, 'state', 'scheduled', 'problem', c.problem)
    redis.call('ZADD', key.scheduled(), stamp(NOW + tonumber(c.retry_after)), c.tenant .. '|' .. c.id)
    redis.call('HINCRBY', key.counters(), 'retries', 1)
    emit(c.tenant, c.id, 'scheduled', {attempt = tonumber(c.attempt), problem = cjson.decode(c.problem)})
  else
    give_up(c.tenant, c.id, 'failed', c.problem)
  end
  return 1
end

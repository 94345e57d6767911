-- The transitions that several scripts need; each keeps record, backlog, counts and events in step.

-- A finished step is not asked for again: its output lies with the document and with its parent.
local STEP_TTL = 600
local STEP_PATIENCE = 300 -- seconds between two tries of a batch's step, at most

-- A crash loses all that its process ran, and does not say which job it was that caused it. So it is forgiven once: the jobs
-- run again side by side. Those lost so many times are suspects: a process runs one at a time, and only what is lost as
-- a suspect fails for it, so that a job that kills its worker takes no other along into the dead letters.
local SUSPECT_AFTER = 2

-- Defined in runs.lua: a run goes on when one of its documents has ended, and stops as a whole.
local begin_run, document_ended, stop_run, run_keys
-- Defined in batches.lua: a batch goes on when one of its lines or steps has ended, and stops as a whole.
local part_ended, stop_batch
-- Defined in deliveries.lua: endpoints are told of an end, in the same transaction.
local tell_webhooks, note_attempt

-- Never below zero: a record may be from before there was the counter.
local function count(name, field, n)
  if redis.call('HINCRBY', name, field, n) <= 0 then redis.call('HDEL', name, field) end
end

-- Jobs and bytes of input by lane and tenant, for the limits at submission: what waits, for its turn or for its time.
local function count_waiting(lane, tenant, jobs, bytes)
  count(key.waiting(), lane .. '|' .. tenant, jobs)
  count(key.waiting(), lane .. '|' .. tenant .. '|bytes', bytes)
end

-- Whether a job is a suspect, by the field `lost` of its record.
local function is_suspect(lost) return tonumber(lost or '0') >= SUSPECT_AFTER end

local function queue_of(lost) return is_suspect(lost) and 'suspects' or 'usual' end

-- Virtual time of a lane and priority: where that started which was claimed last in turn.
local function virtual_time(lane, priority)
  return tonumber(redis.call('HGET', key.virtual(), lane .. '|' .. priority) or NOW)
end

-- Puts a job into its backlog. A first entry starts where the tenant's last one ends, or now, in virtual time (start-time
-- fair queuing): who used an idle system was in nobody's way, and is not behind those who come later.
-- A job that comes back keeps the score it had, so that a crash does not send it to the end.
local function enqueue(tenant, id)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'lane', 'device', 'priority', 'cost', 'score', 'bytes', 'model', 'lost', 'queued')
  local lane, device, priority, score, queued = h[1], h[2], h[3], h[5], h[9] or stamp(NOW)
  if not score then
    local clock = key.clock(lane, priority)
    local start = math.max(virtual_time(lane, priority), tonumber(redis.call('HGET', clock, tenant) or '0'))
    redis.call('HSET', clock, tenant, stamp(start + tonumber(h[4])))
    score = stamp(start)
    redis.call('HSET', k, 'score', score, 'queued', queued)
  end
  redis.call('HSET', k, 'state', 'queued', 'entered', stamp(NOW))
  local model, queue, member = h[7] or '', queue_of(h[8]), tenant .. '|' .. id
  redis.call('ZADD', key.backlog(lane, device, priority, queue, model), score, member)
  redis.call('ZADD', key.ages(lane, device, priority, queue, model), queued, member)
  redis.call('SADD', key.backlogs(lane), table.concat({device, priority, queue, model}, '|'))
  count_waiting(lane, tenant, 1, tonumber(h[6] or '0'))
  wake(lane, device, priority == 'critical' or priority == 'high')
end

-- Takes a job out of its backlog; answers its priority and how long it was there, nothing when it was not.
local function leave(tenant, id)
  local h = redis.call('HMGET', key.job(tenant, id), 'lane', 'device', 'priority', 'bytes', 'entered', 'model', 'lost')
  local lane, device, priority, model, queue, member = h[1], h[2], h[3], h[6] or '', queue_of(h[7]), tenant .. '|' .. id
  if not lane then return nil end
  local backlog = key.backlog(lane, device, priority, queue, model)
  if redis.call('ZREM', backlog, member) == 0 then return nil end
  redis.call('ZREM', key.ages(lane, device, priority, queue, model), member)
  if redis.call('EXISTS', backlog) == 0 then
    redis.call('SREM', key.backlogs(lane), table.concat({device, priority, queue, model}, '|'))
  end
  count_waiting(lane, tenant, -1, 0 - tonumber(h[4] or '0')) -- not a negation: -0 is no integer to the server
  return priority, NOW - tonumber(h[5] or NOW)
end

-- Where a record waits for its time; what is due is counted apart for jobs.
local function schedule_of(id) return is_delivery(id) and key.deliveries_scheduled() or key.scheduled() end

-- Takes a job, if it is there, from those that wait for their time. One that was never begun counts as waiting there; one
-- that is tried again does not, and neither does a run, which has limits of its own.
local function leave_scheduled(tenant, id)
  if redis.call('ZREM', schedule_of(id), tenant .. '|' .. id) == 0 then return end
  local h = redis.call('HMGET', key.job(tenant, id), 'lane', 'bytes', 'attempt', 'template')
  if h[3] == '0' and not h[4] then count_waiting(h[1], tenant, -1, 0 - tonumber(h[2] or '0')) end
end

-- The one way into a final state: exactly one terminal event, and an end to the record's life.
local function conclude(tenant, id, state, result, problem)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'parent', 'step', 'run', 'source', 'batch', 'task')
  redis.call('HSET', k, 'state', state, 'finished', stamp(NOW), 'result', result, 'problem', problem)
  if is_delivery(id) then
    local disabled = problem ~= '' and cjson.decode(problem).code == 'webhook_disabled'
    redis.call('HINCRBY', key.counters(), 'deliveries.' .. (disabled and 'disabled' or state), 1)
    redis.call('EXPIRE', k, O.result_ttl)
    return
  end
  local data = {}
  if problem ~= '' then data.problem = cjson.decode(problem) end
  tell(tenant, id, h[1], h[2], state, data)
  redis.call('HINCRBY', key.counters(), 'jobs.' .. state, 1)
  if h[1] and h[1] ~= '' then
    local short = state == 'succeeded' and math.min(STEP_TTL, tonumber(O.result_ttl)) or O.result_ttl
    redis.call('EXPIRE', k, short)
    return
  end
  if h[5] then part_ended(tenant, id, h[5], h[3], h[6], state, result, problem) return end
  redis.call('ZREM', key.expiries(), tenant .. '|' .. id)
  redis.call('EXPIRE', k, O.result_ttl)
  redis.call('EXPIRE', key.events(tenant, id), O.result_ttl)
  tell_webhooks(tenant, id, state, problem)
  if h[3] then document_ended(tenant, h[3], id, state, result, problem) end
  if h[4] then
    redis.call('SREM', key.live_runs(tenant), id)
    for _, name in ipairs(run_keys(tenant, id)) do redis.call('EXPIRE', name, O.result_ttl) end
  end
end

-- `cancel` of a record is '' while nobody asked, else the state in which the job shall end.
local function wanted_end(cancel)
  return cancel == 'expired' and 'expired' or 'cancelled'
end

local function create_step(tenant, parent, step)
  local id = parent .. '.' .. step.name
  local h = redis.call('HMGET', key.job(tenant, parent), 'type', 'priority', 'input', 'matter', 'request_id', 'document')
  redis.call('HSET', key.job(tenant, id), 'tenant', tenant, 'id', id, 'type', h[1], 'task', step.task,
    'lane', step.lane, 'device', step.device, 'priority', h[2], 'cost', step.cost, 'model', step.model,
    'input', h[3], 'matter', h[4] or '', 'request_id', h[5] or '', 'parent', parent, 'step', step.name,
    'attempt', '0', 'created', stamp(NOW), 'document', h[6] or '')
  redis.call('HSET', key.job(tenant, parent), 'state', 'waiting', 'current', id)
  emit(tenant, parent, 'step', {step = step.name, state = 'queued'})
  enqueue(tenant, id)
end

-- A job may run now: into its backlog, or for a parent its first step, or for a run its first documents.
local function begin(tenant, id)
  local h = redis.call('HMGET', key.job(tenant, id), 'plan', 'template')
  if h[2] then
    begin_run(tenant, id)
  elseif h[1] then
    create_step(tenant, id, cjson.decode(h[1])[1])
  else
    enqueue(tenant, id)
  end
end

-- The state of a job that waits for its turn: a parent and a run wait for what is below them.
local function waiting_state(k)
  return (redis.call('HEXISTS', k, 'plan') == 1 or redis.call('HEXISTS', k, 'template') == 1) and 'waiting' or 'queued'
end

-- A request that was accepted before under the same key: {'repeated', the record}, {'conflict', id}, or nil.
local function repeated(S, tenant)
  local seen = S.idempotency_key and redis.call('GET', key.idempotency(tenant, S.idempotency_key))
  if not seen then return nil end
  local known, hash = split(seen)
  if redis.call('EXISTS', key.job(tenant, known)) == 0 then return nil end
  if hash ~= S.payload_hash then return {'conflict', known} end
  return {'repeated', redis.call('HGETALL', key.job(tenant, known))}
end

-- What a request to accept S.fields is answered that was accepted before, under the same id or the same key; or nil.
local function accepted_before(S)
  local k = key.job(S.fields.tenant, S.fields.id)
  if redis.call('EXISTS', k) == 1 then return {'accepted', redis.call('HGETALL', k)} end
  return repeated(S, S.fields.tenant)
end

local function remember(S, tenant, id)
  if not S.idempotency_key then return end
  redis.call('SET', key.idempotency(tenant, S.idempotency_key), id .. '|' .. S.payload_hash, 'EX', 86400)
end

-- What is being erased right now of a document and a matter, if either is.
local function being_erased(tenant, document, matter)
  local k = key.erasing(tenant)
  if redis.call('EXISTS', k) == 0 then return nil end
  return redis.call('HGET', k, document) or redis.call('HGET', k, 'matter:' .. matter) or nil
end

-- Why no work may be accepted on what a record names: {'gone', document}, {'erasing', what}, or nil.
local function barred(F)
  if F.document and redis.call('EXISTS', key.document(F.tenant, F.document)) == 0 then return {'gone', F.document} end
  local erasing = being_erased(F.tenant, F.document or '', F.matter or '')
  return erasing and {'erasing', erasing}
end

-- Writes a new record and lets it begin, or wait for its time.
local function create(S, index)
  local F = S.fields
  local k, member = key.job(F.tenant, F.id), F.tenant .. '|' .. F.id
  local record = {'created', stamp(NOW), 'attempt', '0'}
  for name, value in pairs(F) do
    record[#record + 1] = name
    record[#record + 1] = value
  end
  redis.call('HSET', k, unpack(record))
  redis.call('ZADD', index, stamp(NOW), F.id)
  if F.source then redis.call('SADD', key.live_runs(F.tenant), F.id) end
  if S.labels then
    for _, digest in ipairs(S.labels) do redis.call('ZADD', key.label(F.tenant, digest), stamp(NOW), F.id) end
    redis.call('HSET', key.labels(F.tenant), F.id, table.concat(S.labels, ' '))
  end
  redis.call('SADD', key.tenants(), F.tenant)
  redis.call('HINCRBY', key.counters(), 'jobs.submitted', 1)
  if S.expires then redis.call('ZADD', key.expiries(), stamp(S.expires), member) end
  if S.not_before and S.not_before > NOW then
    redis.call('HSET', k, 'state', 'scheduled')
    redis.call('ZADD', key.scheduled(), stamp(S.not_before), member)
    if not F.template then count_waiting(F.lane, F.tenant, 1, tonumber(F.bytes)) end
    emit(F.tenant, F.id, 'scheduled', {state = 'scheduled', due = stamp(S.not_before)})
  else
    local state = waiting_state(k)
    redis.call('HSET', k, 'state', state)
    emit(F.tenant, F.id, state, {state = state})
    begin(F.tenant, F.id)
  end
end

-- Called when a step of `parent` succeeded: starts the next one, or ends the parent with the last result.
local function advance(tenant, parent, name, result)
  local k = key.job(tenant, parent)
  local h = redis.call('HMGET', k, 'state', 'plan', 'cancel')
  if h[1] ~= 'waiting' then return end
  redis.call('HSET', k, 'out:' .. name, result)
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
  local h = redis.call('HMGET', key.job(tenant, id), 'parent', 'batch')
  local parent = h[1] and h[1] ~= '' and h[1] or nil
  conclude(tenant, id, state, '', problem)
  if state == 'failed' and not h[2] and not is_delivery(id) then
    redis.call('ZADD', key.dead(tenant), stamp(NOW), parent or id)
  end
  if parent and redis.call('HGET', key.job(tenant, parent), 'state') == 'waiting' then
    conclude(tenant, parent, state, '', problem)
  end
end

-- Asks for an end of a job in `state` (cancelled or expired): at once while it waits, at its next step while it runs,
-- a parent through its current step. Answers the state, 'cancelling' or 'missing'.
local function stop(tenant, id, state)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'state', 'current', 'template', 'phase')
  local now = h[1]
  if not now then return 'missing' end
  if now == 'queued' then
    leave(tenant, id)
    give_up(tenant, id, state, '')
    return state
  elseif now == 'scheduled' then
    leave_scheduled(tenant, id)
    if h[3] then
      redis.call('HSET', k, 'state', 'waiting', 'cancel', state)
      return stop_run(tenant, id)
    end
    give_up(tenant, id, state, '')
    return state
  elseif now == 'running' then
    redis.call('HSET', k, 'cancel', state)
    return 'cancelling'
  elseif now == 'waiting' then
    if h[4] then return stop_batch(tenant, id, state) end
    redis.call('HSET', k, 'cancel', state)
    if h[3] then return stop_run(tenant, id) end
    return stop(tenant, h[2], state)
  end
  return now
end

-- Executions that count towards the limit: those that were not handed back.
local function tries(k)
  local h = redis.call('HMGET', k, 'attempt', 'released')
  return tonumber(h[1]) - tonumber(h[2] or '0')
end

-- Whether a record is a step of a batch, not one of its lines: it waits for a disk with room rather than lose what the
-- lines have done.
local function is_step(k)
  local h = redis.call('HMGET', k, 'batch', 'run')
  return h[1] and not h[2]
end

-- After how many of them a record fails for good.
local function most_tries(id)
  return tonumber(is_delivery(id) and O.delivery_attempts or O.max_attempts)
end

-- Fenced end of one execution. Answers the state that the job is in now, '' if the attempt had lost its claim.
local function complete(c)
  local k = key.job(c.tenant, c.id)
  local h = redis.call('HMGET', k, 'state', 'attempt', 'parent', 'step', 'cancel', 'lane', 'started', 'priority')
  redis.call('ZREM', key.leases(), c.tenant .. '|' .. c.id .. '|' .. c.attempt)
  if h[1] ~= 'running' or h[2] ~= c.attempt then
    redis.call('HINCRBY', key.counters(), 'stale_results', 1)
    return ''
  end
  local cancel = h[5] or ''
  local took = NOW - tonumber(h[7])
  measure('run', h[6], h[8], took)
  if is_delivery(c.id) then
    note_attempt(k, {at = h[7], seconds = took, outcome = c.outcome, status = c.result ~= '' and c.result or nil,
      problem = c.problem ~= '' and cjson.decode(c.problem) or nil})
  end
  if c.outcome == 'succeeded' then
    local before = tonumber(redis.call('HGET', key.service(), h[6]) or 'nan')
    redis.call('HSET', key.service(), h[6], stamp(before == before and 0.9 * before + 0.1 * took or took))
    -- The last step speaks for its parent.
    redis.call('HSET', h[3] and h[3] ~= '' and key.job(c.tenant, h[3]) or k, 'reused', c.reused)
    conclude(c.tenant, c.id, 'succeeded', c.result, '')
    if h[3] and h[3] ~= '' then advance(c.tenant, h[3], h[4], c.result) end
    return 'succeeded'
  elseif c.outcome == 'cancelled' or cancel ~= '' then
    give_up(c.tenant, c.id, wanted_end(cancel), '')
    return wanted_end(cancel)
  elseif c.outcome == 'released' then
    -- Handed back before it ran to an end (a worker that drains). The attempt's number is used up, so that a repeat
    -- of this very end cannot touch the next one; it does not count towards the limit.
    redis.call('HINCRBY', k, 'released', 1)
    tell(c.tenant, c.id, h[3], h[4], 'queued', {reason = 'released'})
    enqueue(c.tenant, c.id)
    return 'queued'
  elseif c.outcome == 'retry' and (tries(k) < most_tries(c.id) or is_step(k)) then
    redis.call('HSET', k, 'state', 'scheduled', 'problem', c.problem)
    local wait = math.min(tonumber(c.retry_after), is_step(k) and STEP_PATIENCE or math.huge)
    redis.call('ZADD', schedule_of(c.id), stamp(NOW + wait), c.tenant .. '|' .. c.id)
    redis.call('HINCRBY', key.counters(), is_delivery(c.id) and 'deliveries.retried' or 'retries', 1)
    -- Tried again hours later, it takes its turn anew and not before all that came since.
    if is_delivery(c.id) then redis.call('HDEL', k, 'score', 'queued') end
    tell(c.tenant, c.id, h[3], h[4], 'scheduled', {attempt = tonumber(c.attempt), problem = cjson.decode(c.problem)})
    return 'scheduled'
  end
  give_up(c.tenant, c.id, 'failed', c.problem)
  return 'failed'
end

-- A job that ended without success lives again: a parent goes on with the step that ended it.
local function revive(tenant, id)
  local k = key.job(tenant, id)
  redis.call('PERSIST', k)
  redis.call('HDEL', k, 'finished', 'problem', 'result', 'cancel', 'score', 'queued', 'worker', 'released', 'lost')
  -- Numbers of attempts go on, so that an end from an earlier life cannot touch this one.
  redis.call('HSET', k, 'released', redis.call('HGET', k, 'attempt') or '0')
  redis.call('HINCRBY', k, 'replays', 1)
  -- Followers read a stream to its terminal event, so the new life has a stream of its own.
  redis.call('DEL', key.events(tenant, id))
end

local function live_again(tenant, id)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'current', 'plan')
  revive(tenant, id)
  redis.call('HDEL', k, 'started')
  redis.call('ZREM', key.dead(tenant), id)
  redis.call('HINCRBY', key.counters(), 'replays', 1)
  local state = waiting_state(k)
  redis.call('HSET', k, 'state', state)
  emit(tenant, id, state, {state = state, reason = 'replay'})
  if not h[2] or not h[1] then
    begin(tenant, id)
  elseif redis.call('EXISTS', key.job(tenant, h[1])) == 1 then
    revive(tenant, h[1])
    redis.call('HDEL', key.job(tenant, h[1]), 'started')
    emit(tenant, id, 'step', {step = redis.call('HGET', key.job(tenant, h[1]), 'step'), state = 'queued', reason = 'replay'})
    enqueue(tenant, h[1])
  else
    for _, step in ipairs(cjson.decode(h[2])) do
      if id .. '.' .. step.name == h[1] then create_step(tenant, id, step) end
    end
  end
end

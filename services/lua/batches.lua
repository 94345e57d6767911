-- Batches: runs over the lines of a file, between a step that checks the file and one that writes what came of it.
-- The record is a run's with a `phase`: validating, in_progress, finalizing; `cancel` says that it shall end otherwise.
-- Its steps and the jobs of its lines have the field `batch`: they are in no list and go when they end.

local function begin_step(tenant, id, task)
  local step = id .. '.' .. task
  local h = redis.call('HMGET', key.job(tenant, id), 'type', 'input', 'request_id')
  redis.call('HSET', key.job(tenant, step), 'tenant', tenant, 'id', step, 'type', h[1], 'task', task, 'lane', 'extract',
    'device', 'any', 'priority', 'normal', 'cost', '5', 'model', '', 'input', h[2], 'bytes', #h[2],
    'request_id', h[3] or '', 'batch', id, 'attempt', '0', 'created', stamp(NOW))
  enqueue(tenant, step)
end

local function end_batch(tenant, id, state, problem)
  release_file(tenant, redis.call('HGET', key.job(tenant, id), 'file'))
  redis.call('DEL', unpack(run_keys(tenant, id))) -- what came of the lines stands in the files
  conclude(tenant, id, state, '', problem)
end

begin_batch = function(tenant, id)
  redis.call('HSET', key.job(tenant, id), 'phase', 'validating', 'last_end', stamp(NOW))
  begin_step(tenant, id, 'batch_check')
end

-- No line is left to run: what came of them is written down, also where the batch was cancelled or has expired.
write_batch = function(tenant, id, phase)
  if phase ~= 'in_progress' then return end
  redis.call('HSET', key.job(tenant, id), 'phase', 'finalizing', 'finalizing', stamp(NOW))
  begin_step(tenant, id, 'batch_output')
end

-- Asks for the end of a batch; too late once its files are written.
stop_batch = function(tenant, id, state)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'phase', 'cancel')
  if h[1] ~= 'finalizing' and (h[2] or '') == '' then
    redis.call('HSET', k, 'cancel', state, 'cancelling', stamp(NOW))
    if h[1] == 'validating' then stop(tenant, id .. '.batch_check', state) else stop_run(tenant, id) end
  end
  local now = redis.call('HGET', k, 'state')
  return now == 'waiting' and 'cancelling' or now
end

local function step_ended(tenant, id, task, state, problem)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'state', 'cancel')
  if h[1] ~= 'waiting' then return end
  local wished = (h[2] or '') ~= '' and wanted_end(h[2])
  if task == 'batch_output' then
    end_batch(tenant, id, state == 'succeeded' and wished or state, state == 'succeeded' and '' or problem)
  elseif wished then
    end_batch(tenant, id, wished, '')
  elseif state == 'succeeded' then
    redis.call('HSET', k, 'phase', 'in_progress', 'in_progress', stamp(NOW), 'last_end', stamp(NOW), 'sealed', '1')
    fill(tenant, id)
  else
    end_batch(tenant, id, 'failed', problem)
  end
end

part_ended = function(tenant, id, batch, run, task, state, result, problem)
  if run then document_ended(tenant, run, id, state, result, problem) else step_ended(tenant, batch, task, state, problem) end
  redis.call('DEL', key.job(tenant, id), key.events(tenant, id))
end

-- Whether an execution of a batch's step still counts.
local function holds(S)
  local h = redis.call('HMGET', key.job(S.tenant, S.step), 'state', 'attempt')
  return h[1] == 'running' and h[2] == S.attempt
end

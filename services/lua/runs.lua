-- Runs: a parent over many documents, each a job of its own made from the run's template when its turn comes.
-- Only `window` of them live at once, so a run of thousands costs the backlog no more than a small one.

local RUN_EVENTS = 2000   -- every event carries the absolute counts, so old ones may go
local OPEN_SECONDS = 3600 -- a run that has begun and that nobody adds to any more is sealed after this long

run_keys = function(tenant, id)
  return {key.run_order(tenant, id), key.run_pending(tenant, id), key.run_items(tenant, id), key.run_active(tenant, id),
    key.run_jobs(tenant, id)}
end

-- Defined in batches.lua: a batch is a run over lines.
local begin_batch, write_batch

local function say(tenant, id, event, data)
  local h = redis.call('HMGET', key.job(tenant, id), 'total', 'succeeded', 'failed', 'cancelled', 'expired', 'pace')
  data.t, data.total, data.pace = stamp(NOW), tonumber(h[1] or '0'), tonumber(h[6] or '0')
  data.succeeded, data.failed = tonumber(h[2] or '0'), tonumber(h[3] or '0')
  data.cancelled, data.expired = tonumber(h[4] or '0'), tonumber(h[5] or '0')
  data.active = redis.call('SCARD', key.run_active(tenant, id))
  redis.call('XADD', key.events(tenant, id), 'MAXLEN', '~', RUN_EVENTS, '*', 'event', event, 'data', cjson.encode(data))
  if event ~= 'document' then announce(tenant, id, event, data) end
end

-- Notes what became of a document and counts it; the smoothed seconds between two ends are the run's pace.
local function note(tenant, id, document, item)
  local k = key.job(tenant, id)
  redis.call('HSET', key.run_items(tenant, id), document, cjson.encode(item))
  redis.call('HINCRBY', k, item.state, 1)
  local h = redis.call('HMGET', k, 'last_end', 'pace')
  local gap, pace = NOW - tonumber(h[1] or NOW), tonumber(h[2])
  redis.call('HSET', k, 'last_end', stamp(NOW), 'pace', stamp(pace and 0.95 * pace + 0.05 * gap or gap))
end

-- Starts one job of a run, made from its template.
local function start_child(tenant, id, template, child, document, item, input)
  redis.call('SADD', key.run_active(tenant, id), child)
  item.job, item.state = child, 'running'
  redis.call('HSET', key.run_items(tenant, id), document, cjson.encode(item))
  if redis.call('EXISTS', key.job(tenant, child)) == 1 then live_again(tenant, child) return end
  local text = cjson.encode(input)
  local k = key.job(tenant, child)
  for field, value in pairs(template) do redis.call('HSET', k, field, value) end
  redis.call('HSET', k, 'tenant', tenant, 'id', child, 'run', id, template.batch and 'line' or 'document', document, 'input', text,
    'bytes', #text, 'created', stamp(NOW), 'attempt', '0', 'request_id', redis.call('HGET', key.job(tenant, id), 'request_id') or '')
  local state = waiting_state(k)
  redis.call('HSET', k, 'state', state)
  emit(tenant, child, state, {state = state})
  begin(tenant, child)
end

-- Starts one document's job, or a line's of a batch; a document that was deleted meanwhile is noted as failed.
local function start_document(tenant, id, template, document, number)
  local input, place = cjson.decode(template.input), string.format('%d', number)
  if template.batch then
    input.line = document
    start_child(tenant, id, template, id .. '.' .. place, document, {n = number}, input)
    return
  end
  input.document, input.name = document, redis.call('HGET', key.document(tenant, document), 'name')
  if not input.name then
    note(tenant, id, document, {n = number, state = 'failed', code = 'document_unknown',
      detail = 'the document was deleted before its turn came'})
    return
  end
  local child = 'job' .. string.sub(id, 4) .. '.' .. place
  redis.call('ZADD', key.run_jobs(tenant, id), 'NX', stamp(NOW), child)
  start_child(tenant, id, template, child, document, {n = number, name = input.name}, input)
end

-- Ends a run that has nothing left to do.
local function conclude_run(tenant, id, h)
  if redis.call('SCARD', key.run_active(tenant, id)) > 0 then return end
  local cancel = h.cancel or ''
  if cancel == '' and (not h.sealed or redis.call('ZCARD', key.run_pending(tenant, id)) > 0) then return end
  if h.phase then write_batch(tenant, id, h.phase) return end
  local total, good = tonumber(h.total or '0'), tonumber(redis.call('HGET', key.job(tenant, id), 'succeeded') or '0')
  redis.call('ZREM', key.open_runs(), tenant .. '|' .. id)
  if cancel ~= '' then
    conclude(tenant, id, wanted_end(cancel), '', '')
  elseif good == total then
    conclude(tenant, id, 'succeeded', '', '')
  else
    conclude(tenant, id, 'failed', '', cjson.encode({type = 'urn:casemill:problem:documents_failed',
      title = 'documents failed', status = 422, code = 'documents_failed', retryable = true,
      detail = string.format('%d of %d documents did not succeed; the results name each with its reason, and '
        .. 'a retry of the run runs those again', total - good, total)}))
  end
end

-- Starts documents while the window has room; ends the run when none is left.
local function fill(tenant, id)
  local raw, h = redis.call('HGETALL', key.job(tenant, id)), {}
  for i = 1, #raw, 2 do h[raw[i]] = raw[i + 1] end
  if h.state ~= 'waiting' then return end
  if not h.paused then -- one that is cancelled has none that wait
    local template = cjson.decode(h.template)
    while redis.call('SCARD', key.run_active(tenant, id)) < tonumber(h.window) do
      local head = redis.call('ZPOPMIN', key.run_pending(tenant, id))
      if not head[1] then break end
      start_document(tenant, id, template, head[1], tonumber(head[2]))
    end
  end
  conclude_run(tenant, id, h)
end

local function has_document(tenant, id, document)
  return redis.call('ZSCORE', key.run_pending(tenant, id), document)
    or redis.call('HEXISTS', key.run_items(tenant, id), document) == 1
end

-- Adds documents that the run does not have yet, at its end.
local function add_documents(tenant, id, documents)
  local k, order, pending = key.job(tenant, id), key.run_order(tenant, id), key.run_pending(tenant, id)
  local total = tonumber(redis.call('HGET', k, 'total') or '0')
  for _, document in ipairs(documents) do
    if not has_document(tenant, id, document) then
      total = total + 1
      redis.call('RPUSH', order, document)
      redis.call('ZADD', pending, total, document)
    end
  end
  redis.call('HSET', k, 'total', total)
end

local function seal(tenant, id)
  redis.call('ZREM', key.open_runs(), tenant .. '|' .. id)
  redis.call('HSET', key.job(tenant, id), 'sealed', '1')
  fill(tenant, id)
end

local function leave_open(tenant, id)
  local member = tenant .. '|' .. id
  local begins = tonumber(redis.call('ZSCORE', key.scheduled(), member) or NOW)
  redis.call('ZADD', key.open_runs(), stamp(math.max(NOW, begins) + OPEN_SECONDS), member)
end

begin_run = function(tenant, id)
  local k = key.job(tenant, id)
  redis.call('HSET', k, 'state', 'waiting', 'started', stamp(NOW), 'last_end', stamp(NOW))
  local h = redis.call('HMGET', k, 'source', 'matter')
  if h[1] == 'lines' then
    begin_batch(tenant, id)
  elseif h[1] == 'matter' then
    add_documents(tenant, id, redis.call('ZRANGE', key.matter(tenant, h[2]), 0, -1))
    seal(tenant, id)
  else
    fill(tenant, id)
  end
end

document_ended = function(tenant, id, child, state, result, problem)
  if redis.call('EXISTS', key.job(tenant, id)) == 0 then return end
  local h = redis.call('HMGET', key.job(tenant, child), 'document', 'started', 'reused', 'batch', 'line')
  local document = h[1] or h[5]
  redis.call('SREM', key.run_active(tenant, id), child)
  local before = cjson.decode(redis.call('HGET', key.run_items(tenant, id), document))
  local item = {n = before.n, name = before.name, state = state, job = child, result = result}
  if h[2] then item.seconds = NOW - tonumber(h[2]) end
  if h[3] == '1' and state == 'succeeded' then
    item.reused = true
    redis.call('HINCRBY', key.job(tenant, id), 'reused', 1)
  end
  if problem ~= '' then
    local why = cjson.decode(problem)
    item.code, item.detail, item.status = why.code, why.detail, why.status
  end
  note(tenant, id, document, item)
  if not h[4] then -- nobody follows the lines of a batch
    say(tenant, id, 'document', {document = document, name = before.name, state = state, job = child, code = item.code})
  end
  fill(tenant, id)
end

-- Ends a run whose record has `cancel` set: at once what waits, the rest at its next step.
stop_run = function(tenant, id)
  local k, pending = key.job(tenant, id), key.run_pending(tenant, id)
  local state = wanted_end(redis.call('HGET', k, 'cancel'))
  local never = redis.call('ZRANGE', pending, 0, -1, 'WITHSCORES')
  for i = 1, #never, 2 do
    redis.call('HSET', key.run_items(tenant, id), never[i], cjson.encode({n = tonumber(never[i + 1]), state = state}))
  end
  redis.call('HINCRBY', k, state, #never / 2)
  redis.call('DEL', pending)
  for _, child in ipairs(redis.call('SMEMBERS', key.run_active(tenant, id))) do stop(tenant, child, state) end
  fill(tenant, id)
  local now = redis.call('HGET', k, 'state')
  return now == 'waiting' and 'cancelling' or now
end

-- Takes an ended run back to life, so that documents of it can run again; it takes no others.
local function reopen(tenant, id)
  local k = key.job(tenant, id)
  if redis.call('HGET', k, 'state') == 'waiting' then return end
  revive(tenant, id)
  redis.call('HDEL', k, 'paused')
  redis.call('SADD', key.live_runs(tenant), id)
  redis.call('HSET', k, 'state', 'waiting', 'sealed', '1', 'last_end', stamp(NOW))
  for _, name in ipairs(run_keys(tenant, id)) do redis.call('PERSIST', name) end
  emit(tenant, id, 'waiting', {state = 'waiting', reason = 'retry'})
end

-- Puts one document that did not succeed back into its place among those that wait, unless it waits there already.
local function await_again(tenant, id, document)
  local items = key.run_items(tenant, id)
  local text = redis.call('HGET', items, document)
  if not text then return end
  local item = cjson.decode(text)
  if item.job then redis.call('ZREM', key.dead(tenant), item.job) end
  redis.call('HINCRBY', key.job(tenant, id), item.state, -1)
  redis.call('HDEL', items, document)
  redis.call('ZADD', key.run_pending(tenant, id), item.n, document)
end

-- Sets the time at which a schedule is due next, '' for none.
local function set_due(tenant, id, next)
  local member = tenant .. '|' .. id
  redis.call('HSET', key.schedule(tenant, id), 'next', next)
  if next == '' then redis.call('ZREM', key.schedules(), member) else redis.call('ZADD', key.schedules(), next, member) end
end

-- Moves a schedule from its time `due` on to `next`; false when that time was dealt with before.
local function pass(tenant, id, due, next)
  if redis.call('HGET', key.schedule(tenant, id), 'next') ~= due then return false end
  set_due(tenant, id, next)
  return true
end

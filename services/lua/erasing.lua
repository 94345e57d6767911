-- What an erasure does to jobs and runs: an attempt that runs can deliver nothing any more, nothing of a text is left.

local FINAL = {succeeded = true, failed = true, cancelled = true, expired = true}
local ERASED = cjson.encode({type = 'urn:casemill:problem:document_erased', title = 'document erased', status = 410,
  code = 'document_erased', retryable = false, detail = 'The document or matter that it was about was erased.'})

-- Takes a job out of wherever it waits or runs; the end of its attempt comes too late from now on.
local function withdraw(tenant, id)
  local h = redis.call('HMGET', key.job(tenant, id), 'state', 'attempt', 'current')
  local member = tenant .. '|' .. id
  if h[1] == 'queued' then leave(tenant, id)
  elseif h[1] == 'scheduled' then leave_scheduled(tenant, id)
  elseif h[1] == 'running' then redis.call('ZREM', key.leases(), member .. '|' .. h[2])
  elseif h[1] == 'waiting' and h[3] then withdraw(tenant, h[3]) end
end

-- Leaves of a record what says nothing: ids, states and times.
local function strip(k)
  redis.call('HSET', k, 'input', '{}', 'metadata', '{}', 'result', '', 'problem', ERASED, 'erased', '1')
  redis.call('HDEL', k, 'external_id')
  for _, field in ipairs(redis.call('HKEYS', k)) do
    if string.sub(field, 1, 4) == 'out:' then redis.call('HDEL', k, field) end
  end
end

-- Ends a job, if it has not ended, and strips its record; 1 if it was not before, else 0.
local function erase_job(tenant, id)
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'state', 'plan', 'erased')
  if not h[1] or h[3] then return 0 end
  redis.call('DEL', key.events(tenant, id)) -- before its end is told, so that who follows it learns of that
  if not FINAL[h[1]] then
    withdraw(tenant, id)
    conclude(tenant, id, 'cancelled', '', ERASED)
  end
  for _, step in ipairs(h[2] and cjson.decode(h[2]) or {}) do redis.call('DEL', key.job(tenant, id .. '.' .. step.name)) end
  strip(k)
  redis.call('ZREM', key.dead(tenant), id)
  for digest in string.gmatch(redis.call('HGET', key.labels(tenant), id) or '', '%S+') do
    redis.call('ZREM', key.label(tenant, digest), id)
  end
  redis.call('HDEL', key.labels(tenant), id)
  return 1
end

-- What a run holds of one of its documents: the job, the name, the reason.
local function erase_document_of_run(tenant, id, document)
  local items = key.run_items(tenant, id)
  local text = redis.call('HGET', items, document)
  if not text then return 0 end
  local job = cjson.decode(text).job
  local erased = job and erase_job(tenant, job) or 0
  local item = cjson.decode(redis.call('HGET', items, document))
  redis.call('HSET', items, document, cjson.encode({n = item.n, state = item.state, job = item.job,
    code = 'document_erased', detail = 'the document was erased'}))
  return erased
end

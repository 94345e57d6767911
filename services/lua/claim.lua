-- How a slot chooses its next job: critical first, always; else the highest priority that waits, except that every
-- eighth such claim takes the job that has waited longest beyond its patience, so that nothing starves.

local PATIENCE = {normal = 120, low = 1200, bulk = 14400}
local MODEL_WINDOW = 8     -- how far into a backlog a slot looks for a job whose model is loaded
local MOST_PASSED = 1024   -- jobs that it passes by, so many at a time, where no model among them can be loaded here
local SMALL_COST = 1       -- expected seconds of a job that may share a claim; others would wait behind a longer one
local OLDEST = 8           -- how many of the oldest jobs a slot looks at for one that it can run
local MODEL_PATIENCE = 30  -- seconds that the head may wait behind such jobs

-- The job of one backlog that suits a worker best, and its score: the head, or close behind it one whose model is
-- loaded. `C.models` maps what the worker can load to whether it is loaded; nil when the lane needs no model.
local function candidate(C, backlog)
  if not C.models then
    local head = redis.call('ZRANGE', backlog, 0, 0, 'WITHSCORES')
    return head[1], tonumber(head[2])
  end
  for from = 0, MOST_PASSED - 1, MODEL_WINDOW do
    local rows = redis.call('ZRANGE', backlog, from, from + MODEL_WINDOW - 1, 'WITHSCORES')
    local first, first_score
    for i = 1, #rows, 2 do
      local tenant, id = split(rows[i])
      local h = redis.call('HMGET', key.job(tenant, id), 'model', 'queued')
      local model = h[1] or ''
      if model == '' or C.models[model] then return rows[i], tonumber(rows[i + 1]) end
      if C.models[model] ~= nil and not first then
        first, first_score = rows[i], tonumber(rows[i + 1])
        if NOW - tonumber(h[2] or NOW) > MODEL_PATIENCE then break end
      end
    end
    if first or #rows < 2 * MODEL_WINDOW then return first, first_score end
  end
end

-- Calls `look` with each device class and queue whose jobs the worker may run.
local function each(C, look)
  for _, device in ipairs(C.classes) do
    for _, queue in ipairs(QUEUES) do
      if queue ~= 'suspects' or C.suspects then look(device, queue) end
    end
  end
end

-- The best job of one priority, and its score.
local function best(C, rank)
  local found, score
  each(C, function(device, queue)
    local member, member_score = candidate(C, key.backlog(C.lane, device, PRIORITIES[rank], queue))
    if member and (not found or member_score < score) then found, score = member, member_score end
  end)
  return found, score
end

-- The job that has waited longest beyond the patience of its priority, if any has, among the first that can run here.
local function overdue(C)
  local found, most = nil, 0
  for priority, patience in pairs(PATIENCE) do
    each(C, function(device, queue)
      local rows = redis.call('ZRANGE', key.ages(C.lane, device, priority, queue), 0, OLDEST - 1, 'WITHSCORES')
      for i = 1, #rows, 2 do
        local over = NOW - tonumber(rows[i + 1]) - patience
        if over <= most then break end
        local tenant, id = split(rows[i])
        local model = C.models and redis.call('HGET', key.job(tenant, id), 'model') or ''
        if model == '' or C.models[model] ~= nil then found, most = rows[i], over end
      end
    end)
  end
  return found
end

-- The job to claim; one that is taken in turn moves the virtual time on. A claim has a turn of its own, so `first` says
-- that it has nothing yet: what it would take from another priority, it could not take along.
local function choose(C, first)
  local found, score, rank
  for i = 1, C.ranks do
    found, score = best(C, i)
    if found then rank = i break end
  end
  if not found then return nil end
  if first and rank > 1 and C.ranks == #PRIORITIES then
    local eighth = redis.call('HINCRBY', key.counters(), 'claims.' .. C.lane, 1) % 8 == 0
    local old = eighth and overdue(C)
    if old then return old end
  end
  local cell = C.lane .. '|' .. PRIORITIES[rank]
  if score > tonumber(redis.call('HGET', key.virtual(), cell) or '0') then
    redis.call('HSET', key.virtual(), cell, stamp(score))
  end
  return found
end

-- Whether a worker runs a suspect now.
local function tries_suspect(worker)
  local lease = redis.call('HGET', key.trials(), worker)
  return lease and redis.call('ZSCORE', key.leases(), lease)
end

-- Claims up to C.n jobs of one priority for C.worker, a long one alone and a suspect alone. Answers pairs of flat arrays:
-- the job's fields, then its parent's.
local function claim(C)
  local out, common = {}, nil
  C.suspects = C.suspects and not tries_suspect(C.worker)
  while #out < C.n do
    local member = choose(C, #out == 0)
    if not member then break end
    local tenant, id = split(member)
    local k = key.job(tenant, id)
    local h = redis.call('HMGET', k, 'cost', 'lost', 'parent', 'step', 'priority')
    local suspect = is_suspect(h[2])
    local alone = suspect or tonumber(h[1] or 0) > SMALL_COST
    if #out > 0 and (alone or h[5] ~= common) then break end
    common = h[5]
    local priority, waited = leave(tenant, id)
    if priority then measure('wait', C.lane, priority, waited) end
    local attempt = redis.call('HINCRBY', k, 'attempt', 1)
    redis.call('HSET', k, 'state', 'running', 'started', stamp(NOW), 'worker', C.worker)
    redis.call('ZADD', key.leases(), stamp(NOW + C.lease), member .. '|' .. attempt)
    if suspect then redis.call('HSET', key.trials(), C.worker, member .. '|' .. attempt) end
    -- A receiver that was away for hours says nothing of our workers.
    if tries(k) > 1 and not is_delivery(id) then redis.call('HINCRBY', key.counters(), 'extra_executions', 1) end
    local parent = h[3]
    tell(tenant, id, parent, h[4], 'running', {attempt = attempt, worker = C.worker})
    local outputs = {}
    if parent and parent ~= '' then
      redis.call('HSETNX', key.job(tenant, parent), 'started', stamp(NOW))
      outputs = redis.call('HGETALL', key.job(tenant, parent))
    end
    out[#out + 1] = {redis.call('HGETALL', k), outputs}
    if alone then break end
  end
  return out
end

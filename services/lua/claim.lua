-- How a slot chooses its next job: critical first, always; else the highest priority that waits, except that every
-- eighth such claim takes the job that has waited longest beyond its patience, so that nothing starves.

local PATIENCE = {normal = 120, low = 1200, bulk = 14400}
local MODEL_WINDOW = 8     -- how many jobs of a priority a slot passes by at most for one whose model is loaded
local MODEL_PATIENCE = 30  -- seconds that the first in turn may wait behind such jobs
local SMALL_COST = 1       -- expected seconds of a job that may share a claim; others would wait behind a longer one

-- The backlogs whose jobs the worker can run, by priority, and whether their model is loaded. `C.models` maps what the
-- worker can load to whether it is loaded; nil when the lane needs no model.
local function servable(C)
  local classes, found = {}, {}
  for _, device in ipairs(C.classes) do classes[device] = true end
  for _, priority in ipairs(PRIORITIES) do found[priority] = {} end
  for _, backlog in ipairs(backlogs(C.lane)) do
    backlog.loaded = backlog.model == '' or not C.models or C.models[backlog.model]
    if backlog.loaded ~= nil and classes[backlog.device] and (backlog.queue ~= 'suspects' or C.suspects) then
      table.insert(found[backlog.priority], backlog)
    end
  end
  return found
end

local function queued_at(member)
  local tenant, id = split(member)
  return tonumber(redis.call('HGET', key.job(tenant, id), 'queued') or NOW)
end

-- The job of one priority that suits a worker best, and its score: the first in turn, or close behind it one whose model
-- is loaded.
local function best(among)
  local first, warm
  for _, backlog in ipairs(among) do
    local head = redis.call('ZRANGE', backlog.jobs, 0, 0, 'WITHSCORES')
    if head[1] then
      local job = {member = head[1], score = tonumber(head[2]), exact = head[2], loaded = backlog.loaded}
      if not first or job.score < first.score then first = job end
      if job.loaded and (not warm or job.score < warm.score) then warm = job end
    end
  end
  if not first then return nil end
  if first ~= warm and warm and NOW - queued_at(first.member) <= MODEL_PATIENCE then
    local passed = 0
    for _, backlog in ipairs(among) do passed = passed + redis.call('ZCOUNT', backlog.jobs, '-inf', '(' .. warm.exact) end
    if passed < MODEL_WINDOW then first = warm end
  end
  return first.member, first.score
end

-- The job that has waited longest beyond the patience of its priority, if any has.
local function overdue(claimable)
  local found, most = nil, 0
  for priority, patience in pairs(PATIENCE) do
    for _, backlog in ipairs(claimable[priority]) do
      local oldest = redis.call('ZRANGE', backlog.ages, 0, 0, 'WITHSCORES')
      local over = NOW - tonumber(oldest[2] or NOW) - patience
      if over > most then found, most = oldest[1], over end
    end
  end
  return found
end

-- The job to claim and, where it is taken in turn, its score. A claim has a turn of its own, so `first` says that it has
-- nothing yet: what it would take from another priority, it could not take along.
local function choose(C, claimable, first)
  local found, score, rank
  for i = 1, C.ranks do
    found, score = best(claimable[PRIORITIES[i]])
    if found then rank = i break end
  end
  if not found then return nil end
  if first and rank > 1 and C.ranks == #PRIORITIES then
    local eighth = redis.call('HINCRBY', key.counters(), 'claims.' .. C.lane, 1) % 8 == 0
    local old = eighth and overdue(claimable)
    if old then return old end
  end
  return found, score
end

-- Moves the virtual time on to where that started which is taken in turn.
local function move_on(lane, priority, score)
  local cell = lane .. '|' .. priority
  if score > tonumber(redis.call('HGET', key.virtual(), cell) or '0') then
    redis.call('HSET', key.virtual(), cell, stamp(score))
  end
end

-- Claims up to C.n jobs of one priority for C.worker, a long one alone and a suspect alone. Answers pairs of flat arrays:
-- the job's fields, then its parent's.
local function claim(C)
  local out, common = {}, nil
  C.suspects = C.suspects and not tries_suspect(C.worker)
  local claimable = servable(C)
  while #out < C.n do
    local member, score = choose(C, claimable, #out == 0)
    if not member then break end
    local tenant, id = split(member)
    local k = key.job(tenant, id)
    local h = redis.call('HMGET', k, 'cost', 'lost', 'parent', 'step', 'priority')
    local suspect = is_suspect(h[2])
    local alone = suspect or tonumber(h[1] or 0) > SMALL_COST
    if #out > 0 and (alone or h[5] ~= common) then break end
    common = h[5]
    if score then move_on(C.lane, common, score) end
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

-- The caretaker's round: expired leases, jobs that are due or too late, runs left open, missing tickets, records that ended
-- long ago.
-- ARGV[2] = JSON {batch, lanes, devices, workers = [dead worker…]}. Answers {requeued, promoted, tickets}.
local C = cjson.decode(ARGV[2])
local dead = {}
for _, worker in ipairs(C.workers) do dead[worker] = true end

-- A crash counts as an attempt; a suspect goes to the dead letters after the last one.
local function reap(member)
  redis.call('ZREM', key.leases(), member)
  local tenant, rest = split(member)
  local id, attempt = string.match(rest, '^(.*)|(%d+)$')
  local k = key.job(tenant, id)
  local h = redis.call('HMGET', k, 'state', 'attempt', 'cancel', 'parent', 'step', 'lost')
  if h[1] ~= 'running' or h[2] ~= attempt then return 0 end
  redis.call('HINCRBY', key.counters(), 'leases_lost', 1)
  local lost = redis.call('HINCRBY', k, 'lost', 1)
  if is_delivery(id) then
    note_attempt(k, {at = redis.call('HGET', k, 'started'), outcome = 'worker_lost'})
  end
  if h[3] and h[3] ~= '' then
    give_up(tenant, id, wanted_end(h[3]), '')
  elseif is_suspect(h[6]) and tries(k) >= most_tries(id) then
    give_up(tenant, id, 'failed', cjson.encode({type = 'urn:casemill:problem:worker_lost', title = 'worker lost',
      status = 500, code = 'worker_lost', retryable = false,
      detail = 'The worker died or fell silent ' .. lost .. ' times while it ran this job. '
        .. 'Look at the worker\'s log, then replay the job.'}))
  else
    tell(tenant, id, h[4], h[5], 'queued', {reason = 'worker_lost', attempt = tonumber(attempt)})
    enqueue(tenant, id)
  end
  return 1
end

local requeued, promoted, tickets = 0, 0, 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', key.leases(), '-inf', stamp(NOW), 'LIMIT', 0, C.batch)) do
  requeued = requeued + reap(member)
end
if #C.workers > 0 then
  for _, member in ipairs(redis.call('ZRANGE', key.leases(), 0, -1)) do
    local tenant, rest = split(member)
    local id = string.match(rest, '^(.*)|%d+$')
    if dead[redis.call('HGET', key.job(tenant, id), 'worker') or ''] then requeued = requeued + reap(member) end
  end
end
for _, schedule in ipairs({key.scheduled(), key.deliveries_scheduled()}) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', schedule, '-inf', stamp(NOW), 'LIMIT', 0, C.batch)) do
    local tenant, id = split(member)
    local k = key.job(tenant, id)
    leave_scheduled(tenant, id)
    redis.call('ZREM', schedule, member) -- where an earlier version put it elsewhere, it would come due for ever
    local h = redis.call('HMGET', k, 'state', 'parent', 'step')
    if h[1] == 'scheduled' then
      tell(tenant, id, h[2], h[3], waiting_state(k), {reason = 'due'})
      begin(tenant, id)
      promoted = promoted + 1
    end
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', key.expiries(), '-inf', stamp(NOW), 'LIMIT', 0, C.batch)) do
  redis.call('ZREM', key.expiries(), member)
  local tenant, id = split(member)
  stop(tenant, id, 'expired')
end
-- Who adds documents to a run may be gone; what is there shall have an end.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', key.open_runs(), '-inf', stamp(NOW), 'LIMIT', 0, C.batch)) do
  local tenant, id = split(member)
  seal(tenant, id)
end
for _, lane in ipairs(C.lanes) do
  for _, device in ipairs(C.devices) do
    if O.placement ~= 'pull' then settle(lane, device, dead) end
    for _ = 1, missing(lane, device, true) do
      local written = wake(lane, device)
      if written == 0 then break end
      tickets = tickets + written
    end
  end
  for _, priority in ipairs(PRIORITIES) do
    local now, clock = virtual_time(lane, priority), redis.call('HGETALL', key.clock(lane, priority))
    local idle = waiting(lane, nil, priority) == 0 -- then nobody is ahead of anybody
    for i = 1, #clock, 2 do
      if idle or tonumber(clock[i + 1]) <= now then redis.call('HDEL', key.clock(lane, priority), clock[i]) end
    end
  end
end
redis.call('ZREMRANGEBYSCORE', key.workers(), '-inf', stamp(NOW - 60))
local trials = redis.call('HGETALL', key.trials())
for i = 1, #trials, 2 do
  if not redis.call('ZSCORE', key.leases(), trials[i + 1]) then redis.call('HDEL', key.trials(), trials[i]) end
end
local oldest = string.format('%.0f', (NOW - TENANT_EVENT_SECONDS) * 1000)
for _, tenant in ipairs(redis.call('SMEMBERS', key.tenants())) do
  redis.call('XTRIM', key.tenant_events(tenant), 'MINID', '~', oldest)
  local indexes = {key.jobs(tenant), key.dead(tenant), key.runs(tenant), key.batches(tenant)}
  for _, webhook in ipairs(redis.call('SMEMBERS', key.webhooks(tenant))) do
    indexes[#indexes + 1] = key.deliveries(tenant, webhook)
  end
  local ended = stamp(NOW - tonumber(O.result_ttl))
  for _, index in ipairs(indexes) do
    -- Any one batch of those that may have ended, as the oldest may live on for long.
    local batches = math.ceil(redis.call('ZCOUNT', index, '-inf', ended) / C.batch)
    local from = tonumber(T[2]) % math.max(batches, 1) * C.batch
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', ended, 'LIMIT', from, C.batch)) do
      if redis.call('EXISTS', key.job(tenant, id)) == 0 then
        redis.call('ZREM', index, id)
        local digests = redis.call('HGET', key.labels(tenant), id) or ''
        for digest in string.gmatch(digests, '%S+') do redis.call('ZREM', key.label(tenant, digest), id) end
        redis.call('HDEL', key.labels(tenant), id)
      end
    end
  end
end
return {requeued, promoted, tickets}

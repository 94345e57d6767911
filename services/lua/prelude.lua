-- Shared by every script: server time, key names, and the transitions that several scripts need.
-- ARGV[1] is a JSON object {prefix, ticket, ticket_limit, placement, announcement, result_ttl, max_attempts,
-- delivery_attempts, bounds}.
-- key.* comes from services/keys.py.
local O = cjson.decode(ARGV[1])
local P = O.prefix
--@KEYS@--
local T = redis.call('TIME')
local NOW = tonumber(T[1]) + tonumber(T[2]) / 1e6
local PRIORITIES = {'critical', 'high', 'normal', 'low', 'bulk'}

local function stamp(t) return string.format('%.6f', t) end

local function split(member)
  local tenant, rest = string.match(member, '^([^|]*)|(.*)$')
  return tenant, rest
end

-- Whether a record is a delivery, which lives as a job but is none that a client submitted.
local function is_delivery(id) return string.sub(id, 1, 4) == 'dlv_' end
local TENANT_EVENTS = 20000        -- of a tenant, about; who comes back later is told that some are gone
local TENANT_EVENT_SECONDS = 86400

-- A state for who follows the whole tenant, with what such a follower chooses by. The parts of a batch are none of it.
local function announce(tenant, id, event, data)
  local h = redis.call('HMGET', key.job(tenant, id), 'type', 'matter', 'run', 'external_id', 'template', 'batch', 'source')
  if h[6] then return end
  if data.problem then data.problem = {code = data.problem.code} end -- its detail may quote a document
  data.type, data.matter = h[1], h[2] or ''
  data.named = h[4] and h[4] ~= '' or nil -- by the client; the name itself stays in the record, which an erasure strips
  if h[7] == 'lines' then data.batch = id elseif h[5] then data.run = id else data.job, data.run = id, h[3] or '' end
  local name = key.tenant_events(tenant)
  redis.call('XADD', name, 'MAXLEN', '~', TENANT_EVENTS, '*', 'event', event, 'data', cjson.encode(data))
  -- A read costs nothing on disk, as an end that is set anew with each event would.
  if redis.call('TTL', name) < TENANT_EVENT_SECONDS / 2 then redis.call('EXPIRE', name, TENANT_EVENT_SECONDS) end
end

local function emit(tenant, id, event, data)
  data.t = stamp(NOW)
  redis.call('XADD', key.events(tenant, id), '*', 'event', event, 'data', cjson.encode(data))
  if event ~= 'step' then announce(tenant, id, event, data) end
end

-- Says what became of a job. A step has no stream of its own: its parent's tells the whole story; a delivery has none.
local function tell(tenant, id, parent, step, state, data)
  if is_delivery(id) then return end
  data.state = state
  if parent and parent ~= '' then
    data.step = step
    emit(tenant, parent, 'step', data)
  else
    emit(tenant, id, state, data)
  end
end

-- One ticket into a queue, unless enough wait there already.
local function issue(queue)
  local list = key.tickets(queue)
  if redis.call('LLEN', list) >= tonumber(O.ticket_limit) then return 0 end
  local serial = redis.call('HINCRBY', key.counters(), 'tickets', 1)
  local envelope = string.gsub(O.ticket, '@@QUEUE@@', queue)
  envelope = string.gsub(envelope, '@@ID@@', 'ticket-' .. serial)
  redis.call('LPUSH', list, envelope)
  return 1
end

-- Counts how long a job waited or ran: one field a bucket, named by its upper bound, so that other bounds can follow.
local function measure(what, lane, priority, seconds)
  local i = 1
  while O.bounds[i] and seconds > O.bounds[i] do i = i + 1 end
  redis.call('HINCRBY', key.timings(), table.concat({what, lane, priority, O.bounds[i] or 'inf'}, '|'), 1)
end

local place -- (lane, device, urgent) → queue or nil, in placement.lua

-- One wake-up for a lane and device class: into the shared queue, or into the own one of the worker that placement
-- chooses, unless `worker` names it.
local function wake(lane, device, urgent, worker)
  if O.placement == 'pull' then return issue(lane .. '.' .. device) end
  local queue = worker and lane .. '.' .. device .. '.' .. worker or place(lane, device, urgent)
  if not queue or issue(queue) == 0 then return 0 end
  if queue ~= lane .. '.' .. device then redis.call('EXPIRE', key.tickets(queue), O.announcement) end
  return 1
end

-- The backlogs of a lane that hold jobs. Jobs of one model have one of their own, so that those whose model no worker has
-- at present are in nobody's way, however many there are.
local function backlogs(lane)
  local found = {}
  for i, name in ipairs(redis.call('SMEMBERS', key.backlogs(lane))) do
    local device, priority, queue, model = string.match(name, '^(.-)|(.-)|(.-)|(.*)$')
    found[i] = {device = device, priority = priority, queue = queue, model = model,
      jobs = key.backlog(lane, device, priority, queue, model), ages = key.ages(lane, device, priority, queue, model)}
  end
  return found
end

-- How many jobs wait in a lane, of one device class or priority where these are named.
local function waiting(lane, device, priority)
  local n = 0
  for _, backlog in ipairs(backlogs(lane)) do
    if (device or backlog.device) == backlog.device and (priority or backlog.priority) == backlog.priority then
      n = n + redis.call('ZCARD', backlog.jobs)
    end
  end
  return n
end

-- Shared by every script: server time, key names, and the transitions that several scripts need.
-- ARGV[1] is a JSON object {prefix, ticket, ticket_limit, result_ttl, max_attempts, bounds}.
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

local function emit(tenant, id, event, data)
  data.t = stamp(NOW)
  redis.call('XADD', key.events(tenant, id), '*', 'event', event, 'data', cjson.encode(data))
end

-- Says what became of a job. A step has no stream of its own: its parent's tells the whole story.
local function tell(tenant, id, parent, step, state, data)
  data.state = state
  if parent and parent ~= '' then
    data.step = step
    emit(tenant, parent, 'step', data)
  else
    emit(tenant, id, state, data)
  end
end

-- One wake-up into the ticket queue of a lane and device class, unless enough wait already.
local function wake(lane, device)
  local queue = lane .. '.' .. device
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

local function waiting(lane, device)
  local n = 0
  for _, priority in ipairs(PRIORITIES) do n = n + redis.call('ZCARD', key.backlog(lane, device, priority)) end
  return n
end

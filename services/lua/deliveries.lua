-- Deliveries: messages to registered endpoints. Each is a record that waits, runs and is retried in the lane `deliver`
-- as a job is, without a stream, a place among the tenant's jobs, or an end that others are told of.

-- What a receiver that never answers takes of a worker's slots; with less, a tenant whose receivers hang would be ahead
-- of its turn, and in the way of the others.
local SEND_COST = '1'

-- One message to one endpoint. Its id follows from what it tells, so that one end makes one message.
local function deliver(tenant, webhook, message, priority, request_id)
  local told = table.concat({webhook, message.subject, message.event, message.life}, '|')
  local id = 'dlv_' .. string.sub(redis.sha1hex(told), 1, 32)
  local k = key.job(tenant, id)
  if redis.call('EXISTS', k) == 1 then return id end
  message.at, message.webhook = stamp(NOW), webhook
  redis.call('HSET', k, 'tenant', tenant, 'id', id, 'task', 'deliver', 'lane', 'deliver', 'device', 'any',
    'priority', priority, 'cost', SEND_COST, 'input', cjson.encode(message), 'request_id', request_id,
    'attempt', '0', 'created', stamp(NOW))
  redis.call('ZADD', key.deliveries(tenant, webhook), stamp(NOW), id)
  enqueue(tenant, id)
  return id
end

-- Whether an endpoint is told of an event of a matter: no endpoint's matter means all.
local function subscribed(tenant, webhook, event, matter)
  local h = redis.call('HMGET', key.webhook(tenant, webhook), 'events', 'matter')
  if not string.find(' ' .. (h[1] or '') .. ' ', ' ' .. event .. ' ', 1, true) then return false end
  return h[2] == '' or h[2] == matter
end

-- What is said of a batch is in OpenAI's words.
local BATCH_ENDS = {succeeded = 'completed', failed = 'failed', cancelled = 'cancelled', expired = 'expired'}

-- The numbers of a run or batch, field of its record → name in the message.
local function counts(tenant, id, names)
  local found = {}
  for field, name in pairs(names) do found[name] = tonumber(redis.call('HGET', key.job(tenant, id), field) or '0') end
  return found
end

-- The event of an end and what the message says of it, beside what it says of every end.
local function told_of(tenant, id, kind, state, h)
  if kind == 'batch' then
    return 'batch.' .. BATCH_ENDS[state], {status = BATCH_ENDS[state],
      request_counts = counts(tenant, id, {total = 'total', succeeded = 'completed', failed = 'failed'})}
  end
  local message = {}
  if kind == 'run' then
    message = counts(tenant, id, {total = 'total', succeeded = 'succeeded', failed = 'failed', cancelled = 'cancelled',
      expired = 'expired'})
  end
  message.state, message.type, message.run = state, h[3], h[4] or nil
  return kind == 'run' and 'run.finished' or 'job.' .. state, message
end

tell_webhooks = function(tenant, id, state, problem)
  local kind = string.match(id, '^%a+')
  if kind ~= 'job' and kind ~= 'run' and kind ~= 'batch' then return end
  local webhooks = redis.call('SMEMBERS', key.webhooks(tenant))
  if #webhooks == 0 then return end
  local h = redis.call('HMGET', key.job(tenant, id), 'callback', 'matter', 'type', 'run', 'created', 'priority',
    'request_id', 'replays')
  for _, webhook in ipairs(webhooks) do
    local event, message = told_of(tenant, id, kind, state, h)
    if webhook == h[1] or subscribed(tenant, webhook, event, h[2]) then
      message.event, message.subject, message.matter = event, id, h[2] or ''
      message.created, message.life = h[5], h[8] or '0'
      if problem ~= '' then message.code = cjson.decode(problem).code end
      deliver(tenant, webhook, message, h[6], h[7] or '')
    end
  end
end

-- Notes in a delivery's record what an attempt came to; the newest twenty stay.
note_attempt = function(k, attempt)
  local attempts = cjson.decode(redis.call('HGET', k, 'attempts') or '[]')
  attempts[#attempts + 1] = attempt
  if #attempts > 20 then table.remove(attempts, 1) end
  redis.call('HSET', k, 'attempts', cjson.encode(attempts))
end

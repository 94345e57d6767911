-- Accepts a job: idempotency, limits, record, backlog entry, event and ticket, or nothing of it.
-- ARGV[2] = JSON {fields, idempotency_key?, payload_hash?, limits = {lane, tenant, bytes}, shares, labels?, not_before?,
-- expires?}. Safe to repeat with the same id. Answers {'accepted', what the record has beside the fields},
-- {'accepted' | 'repeated', the record}, {'conflict' | 'past' | 'gone' | 'erasing', why} or {'full', why, jobs over the
-- limit, the limit, measured seconds of a job or ''}.
local MADE = {'state', 'created', 'queued', 'attempt', 'current'}
local S = cjson.decode(ARGV[2])
local F = S.fields
local k = key.job(F.tenant, F.id)
local before = accepted_before(S)
if before then return before end
if S.expires and S.expires <= NOW then return {'past', stamp(NOW)} end
local refused = barred(F)
if refused then return refused end
local depth = waiting(F.lane)
local own = redis.call('HMGET', key.waiting(), F.lane .. '|' .. F.tenant, F.lane .. '|' .. F.tenant .. '|bytes')
local jobs, bytes = tonumber(own[1] or '0'), tonumber(own[2] or '0')

-- Less urgent work is refused sooner, so that a lane full of it still takes what is urgent.
local function limit(name) return math.ceil(S.limits[name] * S.shares[F.priority] / 100) end

local function full(over, most, why)
  return {'full', why .. ', as much as ' .. F.priority .. ' work may fill', over, most,
    redis.call('HGET', key.service(), F.lane) or ''}
end
local lane, tenant = limit('lane'), limit('tenant')
if depth >= lane then return full(depth - lane + 1, lane, depth .. ' jobs wait in the lane') end
if jobs >= tenant then return full(jobs - tenant + 1, tenant, jobs .. ' jobs of this tenant wait in the lane') end
if bytes + tonumber(F.bytes) > limit('bytes') then
  return full(1, jobs, bytes .. ' bytes of input of this tenant wait in the lane')
end
remember(S, F.tenant, F.id)
create(S, key.jobs(F.tenant))
local made, values = {}, redis.call('HMGET', k, unpack(MADE))
for i, name in ipairs(MADE) do
  if values[i] then
    made[#made + 1] = name
    made[#made + 1] = values[i]
  end
end
return {'accepted', made}

-- Heartbeat of one process: extends the leases of its claims and says which are lost or to be cancelled.
-- ARGV[2] = JSON {lease, renew = [member…], hold = [member…]}; `hold` did not move and is only looked at.
-- Answers {member, 'lost' | 'cancel', …} for those alone.
local R = cjson.decode(ARGV[2])
local out = {}
local function look(member, renew)
  local tenant, rest = split(member)
  local id, attempt = string.match(rest, '^(.*)|(%d+)$')
  local h = redis.call('HMGET', key.job(tenant, id), 'state', 'attempt', 'cancel')
  if h[1] ~= 'running' or h[2] ~= attempt then out[#out + 1] = member out[#out + 1] = 'lost' return end
  if renew then redis.call('ZADD', key.leases(), 'XX', stamp(NOW + R.lease), member) end
  if h[3] and h[3] ~= '' then out[#out + 1] = member out[#out + 1] = 'cancel' end
end
for _, member in ipairs(R.renew) do look(member, true) end
for _, member in ipairs(R.hold) do look(member, false) end
return out

-- Appends one entry to an audit log, if its chain still ends where the caller saw it; else tells where it ends now.
-- ARGV[2] = JSON {tenant, after?, entry?, hash?, trim?}; with `trim` the entries up to this number go, which the new one
-- says. Answers {'noted'} or {'behind', number, hash, time} of the last entry.
local S = cjson.decode(ARGV[2])
local k = key.audit(S.tenant)
local last = redis.call('XREVRANGE', k, '+', '-', 'COUNT', 1)[1]
local number, hash = 0, ''
if last then
  number = tonumber(string.match(last[1], '^%d+'))
  for i = 1, #last[2], 2 do
    if last[2][i] == 'hash' then hash = last[2][i + 1] end
  end
end
if S.entry and S.after == hash then
  redis.call('XADD', k, string.format('%d-0', number + 1), 'entry', S.entry, 'hash', S.hash)
  if S.trim then redis.call('XTRIM', k, 'MINID', string.format('%d-0', S.trim + 1)) end
  return {'noted'}
end
return {'behind', number, hash, stamp(NOW)}

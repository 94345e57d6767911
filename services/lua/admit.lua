-- Admits one request: finds the key, by itself or by a browser's session, and spends from its buckets of requests.
-- ARGV[2] = JSON {id, digest} or {session}, with tenant_requests?; or {id, peek} to see whether the key holds, for nothing.
-- Answers {verdict, the key's id, its record, until, wait, buckets}: `admitted`, `limited`, `expired` or `unknown`; `until`
-- is when this way in ends, '' for never.
local S = cjson.decode(ARGV[2])
local id, ends = S.id, nil
if S.session then
  id = redis.call('GET', key.session(S.session))
  if not id then return {'unknown'} end
  ends = NOW + redis.call('PTTL', key.session(S.session)) / 1000
end
local k, raw, h = key.apikey(id), nil, {}
raw = redis.call('HGETALL', k)
for i = 1, #raw, 2 do h[raw[i]] = raw[i + 1] end
if not h.hash then return {'unknown'} end

-- The secrets are 192 random bits and compared by their digests, so the time that it takes tells nothing.
if S.digest and h.hash ~= S.digest then
  ends = h.old_hash == S.digest and tonumber(h.old_until)
  if not ends or ends <= NOW then return {'unknown'} end
end
local expires = tonumber(h.expires or '')
if expires and expires <= NOW then return {'expired', id} end
if expires then ends = math.min(expires, ends or expires) end
ends = ends and stamp(ends) or ''
if S.peek then return {'admitted', id, raw, ends, '0', {}} end

local buckets = {}
if tonumber(h.requests or '') then buckets[1] = {name = 'requests:key:' .. id, limit = tonumber(h.requests)} end
if S.tenant_requests then
  buckets[#buckets + 1] = {name = 'requests:tenant:' .. h.tenant, limit = S.tenant_requests}
end
local wait, told = spend(buckets, 1)
if NOW - tonumber(h.used or '0') >= 60 then redis.pcall('HSET', k, 'used', stamp(NOW)) end
return {wait > 0 and 'limited' or 'admitted', id, raw, ends, stamp(wait), told}

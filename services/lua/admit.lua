-- Admits one request: finds the key, by itself or by a browser's session, and spends from its buckets of requests.
-- ARGV[2] = JSON {id, digest} or {session}, with tenant_requests?; with peek to see whether that still holds, for nothing.
-- Answers {verdict, the key's id, its record, wait, buckets}: `admitted`, `limited`, `expired` or `unknown`.
local S = cjson.decode(ARGV[2])
local id = S.id
if S.session then
  id = redis.call('GET', key.session(S.session))
  if not id then return {'unknown'} end
end
local k, raw, h = key.apikey(id), nil, {}
raw = redis.call('HGETALL', k)
for i = 1, #raw, 2 do h[raw[i]] = raw[i + 1] end
if not h.hash then return {'unknown'} end

-- The secrets are 192 random bits and compared by their digests, so the time that it takes tells nothing.
if not S.session and h.hash ~= S.digest then
  local grace = h.old_hash == S.digest and tonumber(h.old_until)
  if not grace or grace <= NOW then return {'unknown'} end
end
local expires = tonumber(h.expires or '')
if expires and expires <= NOW then return {'expired', id} end
if S.peek then return {'admitted', id, raw, '0', {}} end

local buckets = {}
if tonumber(h.requests or '') then buckets[1] = {name = 'requests:key:' .. id, limit = tonumber(h.requests)} end
if S.tenant_requests then
  buckets[#buckets + 1] = {name = 'requests:tenant:' .. h.tenant, limit = S.tenant_requests}
end
local wait, told = spend(buckets, 1)
if NOW - tonumber(h.used or '0') >= 60 then redis.pcall('HSET', k, 'used', stamp(NOW)) end
return {wait > 0 and 'limited' or 'admitted', id, raw, stamp(wait), told}

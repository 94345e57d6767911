-- Gives a key a new secret; the old one holds for a time of grace. ARGV[2] = JSON {id, digest, grace}. Answers 1, or 0
-- when there is no such key.
local S = cjson.decode(ARGV[2])
local k = key.apikey(S.id)
local old = redis.call('HGET', k, 'hash')
if not old then return 0 end
redis.call('HSET', k, 'hash', S.digest, 'old_hash', old, 'old_until', stamp(NOW + S.grace), 'rotated', stamp(NOW))
return 1

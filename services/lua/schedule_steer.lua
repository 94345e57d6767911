-- Pauses a schedule, or lets one that is paused go on; one that was removed meanwhile stays so.
-- ARGV[2] = JSON {tenant, id, paused, next}: `paused` is '1' or '', `next` its next time, '' for none.
-- Answers 1, or 0 where there was nothing to change.
local S = cjson.decode(ARGV[2])
local k = key.schedule(S.tenant, S.id)
if redis.call('EXISTS', k) == 0 or (redis.call('HGET', k, 'paused') or '') == S.paused then return 0 end
redis.call('HSET', k, 'paused', S.paused)
set_due(S.tenant, S.id, S.next)
return 1

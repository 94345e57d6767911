-- Removes the record of a file; from now on nobody can read it, and its bytes are due to go.
-- ARGV[2] = JSON {tenant, id, due?}; `due`: only if the file has expired. Answers 'removed', 'missing' or 'held'.
local R = cjson.decode(ARGV[2])
local k, member = key.file(R.tenant, R.id), R.tenant .. '|' .. R.id
local h = redis.call('HMGET', k, 'holds', 'filename')
if not h[2] then return 'missing' end
if tonumber(h[1] or '0') > 0 then
  if R.due then redis.call('ZADD', key.file_ends(), stamp(NOW + FILE_HOLD), member) end
  return 'held'
end
if R.due and tonumber(redis.call('ZSCORE', key.file_ends(), member) or 'inf') > NOW then return 'held' end
free_room(R.tenant, k)
redis.call('DEL', k)
redis.call('ZREM', key.files(R.tenant), R.id)
redis.call('ZADD', key.file_ends(), stamp(NOW), member)
return 'removed'

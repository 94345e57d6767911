-- Records the files of a batch, whose bytes are stored, and what its lines used.
-- ARGV[2] = JSON {tenant, id, step, attempt, output?, errors?, usage}; a file is as in file_add, `usage` a JSON text.
-- Answers 1, or 0 for a stale attempt.
local A = cjson.decode(ARGV[2])
if not holds(A) then return 0 end
local k = key.job(A.tenant, A.id)
for _, name in ipairs({'output', 'errors'}) do
  if A[name] then
    add_file(A.tenant, A[name])
    redis.call('HSET', k, name, A[name].id)
  end
end
redis.call('HSET', k, 'usage', A.usage)
return 1

-- Erases those of these jobs that are about what is being erased. ARGV[2] = JSON {tenant, subject, matter?, jobs, any?};
-- with `any` all of them. Answers how many.
local E = cjson.decode(ARGV[2])
local erased = 0
for _, id in ipairs(E.jobs) do
  local h = redis.call('HMGET', key.job(E.tenant, id), 'document', 'matter')
  local meant = E.any or (E.matter and h[2] == E.matter)
    or (h[1] and h[1] ~= '' and redis.call('HGET', key.erasing(E.tenant), h[1]) == E.subject)
  if meant then erased = erased + erase_job(E.tenant, id) end
end
return erased

-- Records that a document, or all of a matter, is to be erased, and takes away its records: nothing can be kept under it
-- and nothing begins on it from now on. ARGV[2] = JSON {tenant, subject, matter?, actor}.
-- Safe to repeat. Answers {'begun', document…} or {'missing'}.
local E = cjson.decode(ARGV[2])
local erasing, member = key.erasing(E.tenant), E.tenant .. '|' .. E.subject
local documents = E.matter and redis.call('ZRANGE', key.matter(E.tenant, E.matter), 0, -1) or {E.subject}
if not E.matter then
  if redis.call('HGET', erasing, E.subject) then return {'begun', E.subject} end
  if redis.call('EXISTS', key.document(E.tenant, E.subject)) == 0 then return {'missing'} end
else
  redis.call('HSET', erasing, E.subject, E.subject)
  redis.call('DEL', key.matter(E.tenant, E.matter))
end
for _, document in ipairs(documents) do
  remove_record(E.tenant, document)
  redis.call('HSET', erasing, document, E.subject)
end
redis.call('HSET', key.erasures(), member, cjson.encode({at = stamp(NOW), actor = E.actor, stage = 'open', counts = {}}))
table.insert(documents, 1, 'begun')
return documents

-- Records that a document, or all of a matter, is to be erased, and takes away its records: nothing can be kept under it
-- and nothing begins on it from now on. ARGV[2] = JSON {tenant, subject, matter?, actor}.
-- Safe to repeat: what has been removed and is not noted yet stays counted, and stands in `before` where it was removed
-- by an erasure that has been carried out. Answers {'begun', the subject of the erasure that takes it along} or
-- {'missing'}.
local E = cjson.decode(ARGV[2])
local erasing, member = key.erasing(E.tenant), E.tenant .. '|' .. E.subject
local documents, matter = {E.subject}, E.matter
if matter then
  documents = redis.call('ZRANGE', key.matter(E.tenant, matter), 0, -1)
  redis.call('HSET', erasing, E.subject, E.subject)
  redis.call('DEL', key.matter(E.tenant, matter))
else
  local under_way = redis.call('HGET', erasing, E.subject)
  if under_way then return {'begun', under_way} end
  matter = redis.call('HGET', key.document(E.tenant, E.subject), 'matter')
  if not matter then return {'missing'} end
end
for _, document in ipairs(documents) do
  remove_record(E.tenant, document)
  redis.call('HSET', erasing, document, E.subject)
end
local text = redis.call('HGET', key.erasures(), member)
local known = text and cjson.decode(text) or {counts = {}}
local before = text and known.stage ~= 'open' and cjson.decode(text).counts or known.before or {}
known.counts.documents = (known.counts.documents or 0) + #documents
redis.call('HSET', key.erasures(), member, cjson.encode({at = stamp(NOW), actor = E.actor, stage = 'open',
  matter = matter, counts = known.counts, before = before}))
return {'begun', E.subject}

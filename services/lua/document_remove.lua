-- Takes out the record of a document, so that nothing can be kept under it any more, and frees its room.
-- ARGV[2] = JSON {tenant, id}. Answers 1, or 0 where there is no such document.
local D = cjson.decode(ARGV[2])
return remove_record(D.tenant, D.id)

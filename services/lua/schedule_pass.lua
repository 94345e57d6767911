-- Passes over a due time without a run. ARGV[2] = JSON {tenant, id, due, next}. Answers 1, or 0 if it was past already.
local S = cjson.decode(ARGV[2])
return pass(S.tenant, S.id, S.due, S.next) and 1 or 0

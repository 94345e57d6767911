-- Cancels a job. ARGV[2] = JSON {tenant, id}.
-- Answers 'cancelled', 'cancelling', the final state that it already has, or 'missing'.
local C = cjson.decode(ARGV[2])
if is_delivery(C.id) then return 'missing' end
return stop(C.tenant, C.id, 'cancelled')

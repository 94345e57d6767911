-- Spends from buckets outside of the admission. ARGV[2] = JSON {amount, buckets = [{name, limit}…]}. Answers {wait, buckets}.
local S = cjson.decode(ARGV[2])
local wait, told = spend(S.buckets, S.amount)
return {stamp(wait), told}

-- Ends an erasure that is proved, or marks it with the rewrite that was asked for; not where its subject has been given to
-- be erased anew since. ARGV[2] = JSON {member, at, asked?}. Answers 1 or 0.
local E = cjson.decode(ARGV[2])
local text = redis.call('HGET', key.erasures(), E.member)
local entry = text and cjson.decode(text)
if not entry or entry.stage ~= 'rewrite' or entry.at ~= E.at then return 0 end
if E.asked then
  entry.asked = E.asked
  redis.call('HSET', key.erasures(), E.member, cjson.encode(entry))
else
  redis.call('HDEL', key.erasures(), E.member)
end
return 1

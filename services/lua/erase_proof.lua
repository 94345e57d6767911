-- Notes how far the proof of an erasure is, unless it was begun anew since. ARGV[2] = JSON {member, at, asked?}; `asked`
-- is the mark of the rewrite that it waits for, without which it is proved and forgotten. Safe to repeat.
local E = cjson.decode(ARGV[2])
local text = redis.call('HGET', key.erasures(), E.member)
local entry = text and cjson.decode(text)
if not entry or entry.stage ~= 'rewrite' or entry.at ~= E.at then return end
if not E.asked then
  redis.call('HDEL', key.erasures(), E.member)
else
  entry.asked = E.asked
  redis.call('HSET', key.erasures(), E.member, cjson.encode(entry))
end

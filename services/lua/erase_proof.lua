-- Notes how far the proof of an erasure is, unless it was begun anew since. ARGV[2] = JSON {member, at, asked?, stage?};
-- `asked` is the mark of the rewrite that it waits for. With the stage 'proved' nothing is left of it, with 'noted' the
-- audit log says so, and it is forgotten. Safe to repeat. Answers 1, or 0 if it was begun anew.
local E = cjson.decode(ARGV[2])
local text = redis.call('HGET', key.erasures(), E.member)
local entry = text and cjson.decode(text)
if not entry or entry.at ~= E.at or entry.stage ~= (E.stage == 'noted' and 'proved' or 'rewrite') then return 0 end
if E.stage == 'noted' then
  redis.call('HDEL', key.erasures(), E.member)
  return 1
end
entry.asked, entry.stage = E.asked or entry.asked, E.stage or entry.stage
redis.call('HSET', key.erasures(), E.member, cjson.encode(entry))
return 1

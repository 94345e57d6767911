-- Which blobs these records of jobs name: large inputs, results, and the results of steps.
-- ARGV[2] = JSON {records = [key…]}. Answers the blobs.
local found = {}
for _, k in ipairs(cjson.decode(ARGV[2]).records) do
  for _, field in ipairs(redis.call('HKEYS', k)) do
    if field == 'blob' or field == 'result' or string.sub(field, 1, 4) == 'out:' then
      local value = redis.call('HGET', k, field)
      if string.find(value, '^%l+_%x+$') then found[#found + 1] = value end
    end
  end
end
return found

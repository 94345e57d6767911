-- Erases what a run holds of documents. ARGV[2] = JSON {tenant, run, documents, whole?}; with `whole` the run is about
-- the matter: it ends and keeps no name, and the call is repeated for all of its documents. Answers how many jobs.
local E = cjson.decode(ARGV[2])
local k, stream = key.job(E.tenant, E.run), key.events(E.tenant, E.run)
local state = redis.call('HGET', k, 'state')
if not state then return 0 end
local erased = 0
if E.whole then
  if not FINAL[state] then
    redis.call('ZREM', key.scheduled(), E.tenant .. '|' .. E.run)
    redis.call('HSET', k, 'state', 'waiting', 'cancel', 'cancelled')
    stop_run(E.tenant, E.run)
    for _, job in ipairs(redis.call('SMEMBERS', key.run_active(E.tenant, E.run))) do
      erased = erased + erase_job(E.tenant, job)
    end
  end
  if redis.call('HGET', k, 'erased') ~= '1' then
    redis.call('DEL', stream)
    emit(E.tenant, E.run, redis.call('HGET', k, 'state'), {state = redis.call('HGET', k, 'state')})
    redis.call('EXPIRE', stream, O.result_ttl)
    redis.call('HSET', k, 'name', '(erased)', 'template', '{"input":"{}","metadata":"{}"}')
    strip(k)
  end
end
local named = {}
for _, document in ipairs(E.documents) do
  erased = erased + erase_document_of_run(E.tenant, E.run, document)
  named[document] = true
end
if not E.whole and #E.documents > 0 then
  -- Every event carries the absolute counts, so those that name these documents may go.
  for _, event in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    for i = 1, #event[2], 2 do
      if event[2][i] == 'data' then
        local document = cjson.decode(event[2][i + 1]).document
        if document and named[document] then redis.call('XDEL', stream, event[1]) end
      end
    end
  end
end
return erased

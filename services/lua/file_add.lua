-- Records a file whose bytes are stored. ARGV[2] = JSON {tenant, file = {id, filename, bytes, purpose, owner, lasts?, reservation?}}.
-- Safe to repeat. Answers the record.
local A = cjson.decode(ARGV[2])
add_file(A.tenant, A.file)
return redis.call('HGETALL', key.file(A.tenant, A.file.id))

-- What documents and files take of the room of their key and their tenant; counted when a record is made, and until it is removed.

-- The record `k` is about to be made: its reservation, if any, becomes what it counts. Once for a record, by its first key.
local function hold_room(tenant, k, bytes, owner, reservation)
  if reservation then redis.call('ZREM', key.storing(tenant), reservation) end
  if redis.call('HSETNX', k, 'owner', owner) == 0 then return end
  redis.call('HINCRBY', key.stored(tenant), 'all', bytes)
  redis.call('HINCRBY', key.stored(tenant), 'key:' .. owner, bytes)
end

-- The record `k` is about to be removed. Those of before this was counted have no owner.
local function free_room(tenant, k)
  local h = redis.call('HMGET', k, 'bytes', 'owner')
  if not h[2] then return end
  for _, field in ipairs({'all', 'key:' .. h[2]}) do
    if redis.call('HINCRBY', key.stored(tenant), field, 0 - tonumber(h[1])) <= 0 then
      redis.call('HDEL', key.stored(tenant), field)
    end
  end
end

-- Takes out the record of a document, so that nothing can be kept under it any more; 0 where there is none.
local function remove_record(tenant, id)
  local k = key.document(tenant, id)
  local matter = redis.call('HGET', k, 'matter')
  if not matter then return 0 end
  free_room(tenant, k)
  redis.call('DEL', k)
  redis.call('ZREM', key.documents(tenant), id)
  if matter ~= '' then redis.call('ZREM', key.matter(tenant, matter), id) end
  return 1
end

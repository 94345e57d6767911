-- What documents take of the room of their key and their tenant; counted when a record is made, and until it is removed.

-- A document's record is about to be made: its reservation becomes what it counts. Once for a document, by its first key.
local function hold_room(tenant, id, bytes, owner, reservation)
  redis.call('ZREM', key.storing(tenant), reservation)
  if redis.call('HSETNX', key.document(tenant, id), 'owner', owner) == 0 then return end
  redis.call('HINCRBY', key.stored(tenant), 'all', bytes)
  redis.call('HINCRBY', key.stored(tenant), 'key:' .. owner, bytes)
end

-- A document's record is about to be removed. Those of before this was counted have no owner.
local function free_room(tenant, id)
  local h = redis.call('HMGET', key.document(tenant, id), 'bytes', 'owner')
  if not h[2] then return end
  for _, field in ipairs({'all', 'key:' .. h[2]}) do
    if redis.call('HINCRBY', key.stored(tenant), field, 0 - tonumber(h[1])) <= 0 then
      redis.call('HDEL', key.stored(tenant), field)
    end
  end
end

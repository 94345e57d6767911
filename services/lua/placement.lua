-- Whose ticket queue is woken when CASEMILL_PLACEMENT is not `pull`: one function per policy, chosen from what the live
-- workers announce. A policy sees {id, slots, weight, load, turn} each and answers one of them, or nil.

-- Smooth weighted round robin: everybody gains its weight, the one furthest ahead goes and pays for all.
local function in_turn(workers, weight)
  local total, first = 0, nil
  for _, worker in ipairs(workers) do
    total = total + weight(worker)
    worker.turn = worker.turn + weight(worker)
    if not first or worker.turn > first.turn then first = worker end
  end
  if first then first.turn = first.turn - total end
  return first
end

local function one() return 1 end

local POLICY = {}

function POLICY.round_robin(workers) return in_turn(workers, one) end

function POLICY.weighted(workers) return in_turn(workers, function(worker) return worker.weight end) end

-- Tickets waiting and jobs held, relative to slots; nobody whose slots are all spoken for, since the job can wait in the
-- backlog for the first slot that is free.
function POLICY.least_connections(workers)
  local least, fewest = {}, 1
  for _, worker in ipairs(workers) do
    local load = worker.load / worker.slots
    if load < fewest then least, fewest = {}, load end
    if load < 1 and load == fewest then least[#least + 1] = worker end
  end
  return in_turn(least, one)
end

-- The live workers of a lane and device class, by id, with the queues of their own that tickets of the cell go to.
local function placed(lane, device)
  local found, rows = {}, redis.call('HGETALL', key.placement(lane, device))
  for i = 1, #rows, 2 do
    local worker = cjson.decode(rows[i + 1])
    worker.id, worker.queue = rows[i], lane .. '.' .. device .. '.' .. rows[i]
    if worker.ends > NOW then found[#found + 1] = worker end
  end
  table.sort(found, function(a, b) return a.id < b.id end)
  return found
end

-- Tickets that wait in the shared queue of a cell and in its workers' own.
local function tickets_of(lane, device, workers)
  local n = redis.call('LLEN', key.tickets(lane .. '.' .. device))
  for _, worker in ipairs(workers) do n = n + redis.call('LLEN', key.tickets(worker.queue)) end
  return n
end

-- How many tickets a cell lacks: one for each job that is ready, up to the limit.
local function missing(lane, device, thorough)
  local workers = O.placement == 'pull' and {} or placed(lane, device)
  return math.min(ready(lane, device, thorough), tonumber(O.ticket_limit)) - tickets_of(lane, device, workers)
end

-- Sets `load` of each worker. Leases are counted, not kept as a number, so that nothing can drift.
local function weigh(workers)
  local held = {}
  for _, member in ipairs(redis.call('ZRANGE', key.leases(), 0, -1)) do
    local tenant, rest = split(member)
    local worker = redis.call('HGET', key.job(tenant, string.match(rest, '^(.*)|%d+$')), 'worker') or ''
    held[worker] = (held[worker] or 0) + 1
  end
  for _, worker in ipairs(workers) do
    worker.load = held[worker.id] or 0
    for _, queue in ipairs(worker.queues) do worker.load = worker.load + redis.call('LLEN', key.tickets(queue)) end
  end
end

-- Assigned to the name that wake knows: the queue for one ticket; nil when enough tickets wait or nobody has room.
-- Urgent work goes to the worker with the fewest connections under every policy, if one has room.
place = function(lane, device, urgent)
  local workers = placed(lane, device)
  if #workers == 0 then return lane .. '.' .. device end
  if tickets_of(lane, device, workers) >= tonumber(O.ticket_limit) and not urgent then return nil end
  local turns = key.turns(lane, device)
  for _, worker in ipairs(workers) do worker.turn = tonumber(redis.call('HGET', turns, 'turn|' .. worker.id) or '0') end
  local chosen
  if urgent or O.placement == 'least_connections' then
    weigh(workers)
    chosen = POLICY.least_connections(workers)
  end
  if not chosen then
    if O.placement == 'least_connections' then return nil end
    chosen = POLICY[O.placement](workers)
  end
  for _, worker in ipairs(workers) do redis.call('HSET', turns, 'turn|' .. worker.id, worker.turn) end
  redis.call('EXPIRE', turns, 3600)
  return chosen.queue
end

-- Takes a worker that is gone out of a cell; its tickets are missing from now on, so the caretaker issues them again.
local function displace(lane, device, worker)
  redis.call('HDEL', key.placement(lane, device), worker)
  redis.call('DEL', key.tickets(lane .. '.' .. device .. '.' .. worker))
end

-- The caretaker's part: workers that are gone leave, and where anybody left or joined, the tickets are dealt anew.
local function settle(lane, device, dead)
  local rows = redis.call('HGETALL', key.placement(lane, device))
  for i = 1, #rows, 2 do
    if dead[rows[i]] or cjson.decode(rows[i + 1]).ends <= NOW then displace(lane, device, rows[i]) end
  end
  local workers, names = placed(lane, device), {}
  for _, worker in ipairs(workers) do names[#names + 1] = worker.id end
  local turns, known = key.turns(lane, device), table.concat(names, ' ')
  if (redis.call('HGET', turns, 'known') or '') ~= known then
    for _, worker in ipairs(workers) do redis.call('DEL', key.tickets(worker.queue)) end
    redis.call('DEL', turns)
    redis.call('HSET', turns, 'known', known)
  end
  redis.call('EXPIRE', turns, 3600)
end

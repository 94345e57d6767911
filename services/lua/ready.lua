-- What waits that a live worker may claim at present, so that nobody is woken in vain.

local announced
-- The live workers, as they announce themselves; read once a script.
local function live_workers()
  if announced then return announced end
  announced = {}
  for _, id in ipairs(redis.call('ZRANGE', key.workers(), 0, -1)) do
    local text = redis.call('GET', key.worker(id))
    if text then announced[#announced + 1] = cjson.decode(text) end
  end
  return announced
end

-- Whether a worker takes what waits in a backlog; the fake engine plays any model.
local function serves(worker, lane, backlog)
  if worker.draining or backlog.device ~= 'any' and backlog.device ~= worker.device then return false end
  local model = backlog.model == '' or worker.engine == 'fake'
  for _, known in ipairs(worker.models) do model = model or known.name == backlog.model and known.kind == lane end
  if not model then return false end
  for _, served in ipairs(worker.lanes) do
    if served == lane then return true end
  end
  return false
end

-- Whether a worker runs a suspect now.
local function tries_suspect(worker)
  local lease = redis.call('HGET', key.trials(), worker)
  return lease and redis.call('ZSCORE', key.leases(), lease)
end

-- Whether any live worker takes it.
local function has_worker(lane, backlog)
  for _, worker in ipairs(live_workers()) do
    if serves(worker, lane, backlog) then return true end
  end
  return false
end

-- How many jobs of a lane and device class wait for which there is a worker. Each tries one suspect at a time, whatever
-- backlog that is in. Jobs whose model nobody has are left out where `thorough`, which takes reading what all workers
-- announce.
local function ready(lane, device, thorough)
  local n, suspects, trying, able = 0, 0, {}, 0
  for _, backlog in ipairs(backlogs(lane)) do
    if backlog.device == device then
      local jobs = redis.call('ZCARD', backlog.jobs)
      if backlog.queue == 'suspects' then
        suspects = suspects + jobs
        for _, worker in ipairs(live_workers()) do
          if not trying[worker.id] and serves(worker, lane, backlog) and not tries_suspect(worker.id) then
            trying[worker.id] = true
            able = able + 1
          end
        end
      elseif not thorough or backlog.model == '' or has_worker(lane, backlog) then
        n = n + jobs
      end
    end
  end
  return n + math.min(suspects, able)
end

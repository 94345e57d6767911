-- Limits of what a tenant has under way in runs and batches: how many have not ended, and the tokens that these may
-- still take of models.

-- Documents that a run is counted for: it was accepted for `expected`, until it is sealed, and has `total` by now.
local function documents_counted(total, expected, sealed)
  return sealed and total or math.max(total, tonumber(expected or '0'))
end

-- Tokens that a run or batch may still take: of a run those of each document that has not ended, of a batch its file's.
local function tokens_left(h)
  local left = documents_counted(tonumber(h.total or '0'), h.expected, h.sealed)
  for _, count in ipairs({'succeeded', 'failed', 'cancelled', 'expired'}) do left = left - tonumber(h[count] or '0') end
  return tonumber(h.tokens or '0') + left * tonumber(h.tokens_each or '0')
end

-- Why what may take `tokens` is not accepted beside what lives of its tenant and its key `owner`, nil if it is.
-- limits = {runs?, key?, tenant?}. Answers {'full', 'runs' | 'key' | 'tenant', what there is, the limit, tokens}.
local function overfull(tenant, owner, tokens, limits)
  local live = redis.call('SMEMBERS', key.live_runs(tenant))
  if limits.runs and #live >= limits.runs then return {'full', 'runs', #live, limits.runs, tokens} end
  if tokens == 0 or not (limits.key or limits.tenant) then return nil end
  local names = {'owner', 'tokens', 'tokens_each', 'total', 'expected', 'sealed', 'succeeded', 'failed', 'cancelled',
    'expired'}
  local held = {key = 0, tenant = 0}
  for _, id in ipairs(live) do
    local values, h = redis.call('HMGET', key.job(tenant, id), unpack(names)), {}
    for i, name in ipairs(names) do h[name] = values[i] or nil end
    local left = tokens_left(h)
    held.tenant = held.tenant + left
    if h.owner == owner then held.key = held.key + left end
  end
  for _, whose in ipairs({'key', 'tenant'}) do
    if limits[whose] and held[whose] + tokens > limits[whose] then
      return {'full', whose, held[whose], limits[whose], tokens}
    end
  end
end

-- Ends what a slot holds and claims what it does next, in one step.
-- ARGV[2] = JSON {done = [completion…], n, lane, classes, ranks, models?, suspects, worker, lease, stay?, goes_on?};
-- n = 0 only ends. Answers {state after each end…}, {claims…}. A slot that stops while work remains leaves a wake-up
-- behind, with `stay` one for its own worker; one that `goes_on` with what it holds leaves none.
local W = cjson.decode(ARGV[2])
local states = {}
for i, c in ipairs(W.done) do states[i] = complete(c) end
if W.n > 0 then return {states, claim(W)} end
if W.goes_on then return {states, {}} end
for _, device in ipairs(W.classes) do
  if O.placement == 'pull' or W.stay then
    if ready(W.lane, device) > 0 then wake(W.lane, device, false, W.worker) end
  elseif missing(W.lane, device) > 0 then
    wake(W.lane, device)
  end
end
return {states, {}}

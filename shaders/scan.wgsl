// Finds every place in a text where a term's factor ends, by walking one automaton over it.
//
// The text is one symbol a byte. Each thread owns a chunk; it starts at least `overlap` symbols early, so that it is in
// the right state when its chunk begins, and reports only ends inside the chunk. Sixteen symbols are read at a time into
// `far`, four of them at hand in `near`; the walk begins where sixteen do. `count` says how many ends each chunk has; the
// host adds them up; `scatter` walks again and writes (place, state) from each chunk's own offset.

struct Job {
  end: u32,         // the symbols whose ends are reported: `begin` up to `end`; those before only lead up to them
  begin: u32,
  chunk: u32,       // symbols a thread owns
  chunks: u32,
  overlap: u32,
  row: u32,         // cells a state has in `table`
  width: u32,       // threads in x of the dispatch; more fold into y
  unused: u32,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> text: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(0) @binding(4) var<storage, read> offsets: array<u32>;
@group(0) @binding(5) var<storage, read_write> hits: array<vec2<u32>>;

const ACCEPT: u32 = 0x80000000u;
const STATE: u32 = 0x7fffffffu;

@compute @workgroup_size(64)
fn count(@builtin(global_invocation_id) id: vec3<u32>) {
  let owner = id.x + id.y * job.width;
  if (owner >= job.chunks) {
    return;
  }
  let start = job.begin + owner * job.chunk;
  let end = min(start + job.chunk, job.end);
  var found = 0u;
  var far = vec4<u32>();
  var near = 0u;
  var state = 0u;
  for (var place = (start - min(start, job.overlap)) & ~15u; place < end; place++) {
    if ((place & 15u) == 0u) {
      far = text[place >> 4u];
    }
    if ((place & 3u) == 0u) {
      near = far.x;
      far = vec4<u32>(far.yzw, 0u);
    }
    let cell = table[state + (near & 255u)];
    near >>= 8u;
    state = cell & STATE;
    if ((cell & ACCEPT) != 0u && place >= start) {
      found++;
    }
  }
  counts[owner] = found;
}

@compute @workgroup_size(64)
fn scatter(@builtin(global_invocation_id) id: vec3<u32>) {
  let owner = id.x + id.y * job.width;
  if (owner >= job.chunks) {
    return;
  }
  // The chunk's hits go to offsets[owner] up to offsets[owner + 1]; most chunks have none and are done here.
  var slot = offsets[owner];
  let last = offsets[owner + 1u];
  let start = job.begin + owner * job.chunk;
  let end = min(start + job.chunk, job.end);
  var far = vec4<u32>();
  var near = 0u;
  var state = 0u;
  for (var place = (start - min(start, job.overlap)) & ~15u; place < end && slot < last; place++) {
    if ((place & 15u) == 0u) {
      far = text[place >> 4u];
    }
    if ((place & 3u) == 0u) {
      near = far.x;
      far = vec4<u32>(far.yzw, 0u);
    }
    let cell = table[state + (near & 255u)];
    near >>= 8u;
    state = cell & STATE;
    if ((cell & ACCEPT) != 0u && place >= start) {
      hits[slot] = vec2<u32>(place, state);
      slot++;
    }
  }
}

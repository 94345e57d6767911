// The smallest value that each of 128 permutations gives any hash of a set: the set's MinHash sketch.
//
// A workgroup owns one run of hashes, a thread one permutation: multiplication by an odd number, which maps the 32-bit
// numbers one to one. The hashes pass through workgroup memory tile by tile, so that each is fetched once for all 128.

struct Job {
  runs: u32,
  row: u32,         // workgroups in x of the dispatch; more fold into y
  unused_a: u32,
  unused_b: u32,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> hashes: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;   // run k: hashes[offsets[k]] up to hashes[offsets[k + 1]]
@group(0) @binding(3) var<storage, read> factors: array<u32>;
@group(0) @binding(4) var<storage, read_write> sketches: array<u32>;

const THREADS: u32 = 128u;
const TILE: u32 = 1024u;

var<workgroup> tile: array<u32, TILE>;

@compute @workgroup_size(128)
fn minhash(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let run = group.x + group.y * job.row;
  if (run >= job.runs) {
    return;
  }
  let factor = factors[lane];
  let last = offsets[run + 1u];
  var smallest = 0xffffffffu;
  for (var begin = offsets[run]; begin < last; begin += TILE) {
    let count = min(TILE, last - begin);
    for (var k = lane; k < count; k += THREADS) {
      tile[k] = hashes[begin + k];
    }
    workgroupBarrier();
    for (var k = 0u; k < count; k++) {
      smallest = min(smallest, tile[k] * factor);
    }
    workgroupBarrier();
  }
  sketches[run * THREADS + lane] = smallest;
}

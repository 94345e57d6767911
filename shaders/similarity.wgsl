// Scores many vectors against many queries and keeps the best of each query, so that only candidates leave the GPU.
//
// `score` is a product of matrices in tiles: a workgroup owns 64 vectors and 64 queries, takes 16 numbers of each at a
// time into its memory, and each thread sums 8 x 8 products. `begin` sorts blocks of 1,024 scores of one query and
// writes the best `keep` of each; `go_on` does the same with what was written, until one block of each query is left.

struct Job {
  rows: u32,      // vectors; a query has as many scores
  quads: u32,     // numbers of a vector / 4
  queries: u32,
  groups: u32,    // workgroups with work; more may be dispatched
  entries: u32,   // scores of a query that `begin` or `go_on` reads
  blocks: u32,    // of 1,024 entries, a query
  keep: u32,      // a power of two, at most 512
  unused: u32,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> queries: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;
@group(0) @binding(4) var<storage, read> read_scores: array<f32>;
@group(0) @binding(5) var<storage, read> read_best: array<vec2<u32>>;        // score's bits, place
@group(0) @binding(6) var<storage, read_write> best: array<vec2<u32>>;

const TILE: u32 = 64u;
const DEPTH: u32 = 4u;
const BLOCK: u32 = 1024u;
const NOWHERE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.0e38;

var<workgroup> some_vectors: array<vec4<f32>, TILE * DEPTH>;
var<workgroup> some_queries: array<vec4<f32>, TILE * DEPTH>;
var<workgroup> sorted_scores: array<f32, BLOCK>;
var<workgroup> sorted_places: array<u32, BLOCK>;

@compute @workgroup_size(64)
fn score(
  @builtin(workgroup_id) at: vec3<u32>,
  @builtin(num_workgroups) all: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let group = at.x + at.y * all.x;
  if (group >= job.groups) {
    return;
  }
  let tiles = (job.queries + TILE - 1u) / TILE;
  let first_row = (group / tiles) * TILE;
  let first_query = (group % tiles) * TILE;
  let x = thread % 8u;
  let y = thread / 8u;

  var sums = array<array<vec4<f32>, 2>, 8>();
  for (var start = 0u; start < job.quads; start += DEPTH) {
    for (var k = thread; k < TILE * DEPTH; k += 64u) {
      let row = first_row + k / DEPTH;
      let query = first_query + k / DEPTH;
      let quad = start + k % DEPTH;
      let own = (k % DEPTH) * TILE + k / DEPTH;
      some_vectors[own] = vec4<f32>();
      some_queries[own] = vec4<f32>();
      if (quad < job.quads && row < job.rows) {
        some_vectors[own] = vectors[row * job.quads + quad];
      }
      if (quad < job.quads && query < job.queries) {
        some_queries[own] = queries[query * job.quads + quad];
      }
    }
    workgroupBarrier();
    for (var depth = 0u; depth < DEPTH; depth++) {
      let origin = depth * TILE;
      for (var part_of = 0u; part_of < 2u; part_of++) {
        let asker = origin + y + 32u * part_of;
        let a = some_queries[asker];
        let b = some_queries[asker + 8u];
        let c = some_queries[asker + 16u];
        let d = some_queries[asker + 24u];
        for (var k = 0u; k < 8u; k++) {
          let vector = some_vectors[origin + x + 8u * k];
          sums[k][part_of] += vec4<f32>(dot(a, vector), dot(b, vector), dot(c, vector), dot(d, vector));
        }
      }
    }
    workgroupBarrier();
  }

  for (var k = 0u; k < 8u; k++) {
    let row = first_row + x + 8u * k;
    for (var n = 0u; n < 8u; n++) {
      let query = first_query + y + 8u * n;
      if (row < job.rows && query < job.queries) {
        scores[query * job.rows + row] = sums[k][n / 4u][n % 4u];
      }
    }
  }
}

// Higher scores first; of equal ones the lower place.
fn behind(left: u32, right: u32) -> bool {
  let ahead = sorted_scores[left];
  let after = sorted_scores[right];
  return ahead < after || (ahead == after && sorted_places[left] > sorted_places[right]);
}

fn sort_block(thread: u32) {
  for (var run = 2u; run <= BLOCK; run *= 2u) {
    for (var apart = run / 2u; apart > 0u; apart /= 2u) {
      workgroupBarrier();
      for (var pair = thread; pair < BLOCK / 2u; pair += 64u) {
        let left = 2u * apart * (pair / apart) + pair % apart;
        let right = left + apart;
        let descending = (left & run) == 0u;
        if (behind(left, right) == descending) {
          let moved_score = sorted_scores[left];
          let moved_place = sorted_places[left];
          sorted_scores[left] = sorted_scores[right];
          sorted_places[left] = sorted_places[right];
          sorted_scores[right] = moved_score;
          sorted_places[right] = moved_place;
        }
      }
    }
  }
  workgroupBarrier();
}

fn write_best(thread: u32, group: u32) {
  for (var k = thread; k < job.keep; k += 64u) {
    best[group * job.keep + k] = vec2<u32>(bitcast<u32>(sorted_scores[k]), sorted_places[k]);
  }
}

@compute @workgroup_size(64)
fn begin(
  @builtin(workgroup_id) at: vec3<u32>,
  @builtin(num_workgroups) all: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let group = at.x + at.y * all.x;
  if (group >= job.groups) {
    return;
  }
  let query = group / job.blocks;
  let start = (group % job.blocks) * BLOCK;
  for (var k = thread; k < BLOCK; k += 64u) {
    sorted_scores[k] = LOWEST;
    sorted_places[k] = NOWHERE;
    if (start + k < job.entries) {
      sorted_scores[k] = read_scores[query * job.entries + start + k];
      sorted_places[k] = start + k;
    }
  }
  sort_block(thread);
  write_best(thread, group);
}

@compute @workgroup_size(64)
fn go_on(
  @builtin(workgroup_id) at: vec3<u32>,
  @builtin(num_workgroups) all: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let group = at.x + at.y * all.x;
  if (group >= job.groups) {
    return;
  }
  let query = group / job.blocks;
  let start = (group % job.blocks) * BLOCK;
  for (var k = thread; k < BLOCK; k += 64u) {
    sorted_scores[k] = LOWEST;
    sorted_places[k] = NOWHERE;
    if (start + k < job.entries) {
      let entry = read_best[query * job.entries + start + k];
      sorted_scores[k] = bitcast<f32>(entry.x);
      sorted_places[k] = entry.y;
    }
  }
  sort_block(thread);
  write_best(thread, group);
}

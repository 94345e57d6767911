// Scores many vectors against many queries and keeps the best of each query, so that only candidates leave the GPU.
//
// `score` is a product of matrices in tiles: a workgroup owns 64 vectors and 64 queries, takes 16 numbers of each at a
// time into its memory, and each thread sums 8 x 8 products. It also writes the greatest score of each query in its
// tile: the best `keep` scores of a query stand in the `keep` tiles whose greatest are the best. `begin` sorts blocks of
// 1,024 scores of one query, the tiles' or all, and writes the best `keep` of each; `go_on` does the same with what was
// written, until one block of each query is left. `within` begins again with the scores in the tiles that were found.

struct Job {
  rows: u32,      // vectors; a query has as many scores
  quads: u32,     // numbers of a vector / 4
  queries: u32,
  groups: u32,    // workgroups with work; more may be dispatched
  entries: u32,   // scores of a query that `begin`, `go_on` or `within` reads
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
@group(0) @binding(7) var<storage, read_write> peaks: array<f32>;             // the greatest score of a query in a tile

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;      // numbers of a vector at a time
const QUADS: u32 = 4u;       // the same in fours
const STRIDE: u32 = 16u;     // fours of a tile's vectors
const BLOCK: u32 = 1024u;
const NOWHERE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.0e38;

// One number of four vectors each. In which place of its row a four stands is turned with the row, by `turned`, or threads
// would wait for the same bank of memory.
var<workgroup> some_vectors: array<vec4<f32>, DEPTH * STRIDE>;
var<workgroup> some_queries: array<vec4<f32>, DEPTH * STRIDE>;
var<workgroup> sorted_scores: array<f32, BLOCK>;  // in `score`, for each query what each of eight threads found greatest
var<workgroup> sorted_places: array<u32, BLOCK>;

fn turned(four: u32, row: u32) -> u32 {
  return four ^ (2u * (row / 4u));
}

fn vector_quad(row: u32, quad: u32) -> vec4<f32> {
  if (quad < job.quads && row < job.rows) {
    return vectors[row * job.quads + quad];
  }
  return vec4<f32>();
}

fn query_quad(query: u32, quad: u32) -> vec4<f32> {
  if (quad < job.quads && query < job.queries) {
    return queries[query * job.quads + quad];
  }
  return vec4<f32>();
}

// Write the scores of four queries from `query` on for a vector; what they are among the greatest.
fn put(query: u32, row: u32, values: vec4<f32>) -> vec4<f32> {
  if (row >= job.rows) {
    return vec4<f32>(LOWEST);
  }
  if (query + 3u < job.queries) {
    scores[query * job.rows + row] = values.x;
    scores[(query + 1u) * job.rows + row] = values.y;
    scores[(query + 2u) * job.rows + row] = values.z;
    scores[(query + 3u) * job.rows + row] = values.w;
    return values;
  }
  for (var k = 0u; query + k < job.queries; k++) {
    scores[(query + k) * job.rows + row] = values[k];
  }
  return values;
}

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
  // Four vectors and four queries whose numbers this thread brings, and where it leaves them.
  let row = first_row + 4u * (thread / QUADS);
  let query = first_query + 4u * (thread / QUADS);
  let own = (thread % QUADS) * 4u * STRIDE + turned(thread / QUADS, (thread % QUADS) * 4u);

  // Written out, so that all of them stay in registers: eight vectors with four queries each, and with four more.
  var a0 = vec4<f32>(); var a1 = vec4<f32>(); var a2 = vec4<f32>(); var a3 = vec4<f32>();
  var a4 = vec4<f32>(); var a5 = vec4<f32>(); var a6 = vec4<f32>(); var a7 = vec4<f32>();
  var b0 = vec4<f32>(); var b1 = vec4<f32>(); var b2 = vec4<f32>(); var b3 = vec4<f32>();
  var b4 = vec4<f32>(); var b5 = vec4<f32>(); var b6 = vec4<f32>(); var b7 = vec4<f32>();
  for (var start = 0u; start < job.quads; start += QUADS) {
    let quad = start + thread % QUADS;
    let v = transpose(mat4x4<f32>(
      vector_quad(row, quad), vector_quad(row + 1u, quad), vector_quad(row + 2u, quad), vector_quad(row + 3u, quad)));
    let q = transpose(mat4x4<f32>(
      query_quad(query, quad), query_quad(query + 1u, quad), query_quad(query + 2u, quad), query_quad(query + 3u, quad)));
    some_vectors[own] = v[0];
    some_vectors[own + STRIDE] = v[1];
    some_vectors[own + 2u * STRIDE] = v[2];
    some_vectors[own + 3u * STRIDE] = v[3];
    some_queries[own] = q[0];
    some_queries[own + STRIDE] = q[1];
    some_queries[own + 2u * STRIDE] = q[2];
    some_queries[own + 3u * STRIDE] = q[3];
    workgroupBarrier();
    for (var depth = 0u; depth < DEPTH; depth++) {
      let near_x = depth * STRIDE + turned(x, depth);
      let near_y = depth * STRIDE + turned(y, depth);
      let v0 = some_vectors[near_x];
      let v1 = some_vectors[near_x + 8u];
      let q0 = some_queries[near_y];
      let q1 = some_queries[near_y + 8u];
      a0 += q0 * v0.x; a1 += q0 * v0.y; a2 += q0 * v0.z; a3 += q0 * v0.w;
      a4 += q0 * v1.x; a5 += q0 * v1.y; a6 += q0 * v1.z; a7 += q0 * v1.w;
      b0 += q1 * v0.x; b1 += q1 * v0.y; b2 += q1 * v0.z; b3 += q1 * v0.w;
      b4 += q1 * v1.x; b5 += q1 * v1.y; b6 += q1 * v1.z; b7 += q1 * v1.w;
    }
    workgroupBarrier();
  }

  let low = first_row + 4u * x;
  let high = low + 32u;
  let near = first_query + 4u * y;
  let far = near + 32u;
  let greatest_near = max(
    max(max(put(near, low, a0), put(near, low + 1u, a1)), max(put(near, low + 2u, a2), put(near, low + 3u, a3))),
    max(max(put(near, high, a4), put(near, high + 1u, a5)), max(put(near, high + 2u, a6), put(near, high + 3u, a7))));
  let greatest_far = max(
    max(max(put(far, low, b0), put(far, low + 1u, b1)), max(put(far, low + 2u, b2), put(far, low + 3u, b3))),
    max(max(put(far, high, b4), put(far, high + 1u, b5)), max(put(far, high + 2u, b6), put(far, high + 3u, b7))));
  for (var k = 0u; k < 4u; k++) {
    sorted_scores[(4u * y + k) * 8u + x] = greatest_near[k];
    sorted_scores[(4u * y + k + 32u) * 8u + x] = greatest_far[k];
  }
  workgroupBarrier();
  if (first_query + thread < job.queries) {
    var greatest = LOWEST;
    for (var k = 0u; k < 8u; k++) {
      greatest = max(greatest, sorted_scores[thread * 8u + k]);
    }
    let columns = (job.rows + TILE - 1u) / TILE;
    peaks[(first_query + thread) * columns + group / tiles] = greatest;
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

@compute @workgroup_size(64)
fn within(
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
      let tile = read_best[query * job.keep + (start + k) / TILE].y;
      let row = tile * TILE + k % TILE;
      if (tile != NOWHERE && row < job.rows) {
        sorted_scores[k] = read_scores[query * job.rows + row];
        sorted_places[k] = row;
      }
    }
  }
  sort_block(thread);
  write_best(thread, group);
}

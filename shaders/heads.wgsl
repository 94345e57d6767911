// Products of vectors with the weights of the clause heads, in whole numbers, so that every device gives the same sums.
//
// A thread owns one product: row `place / heads` of the vectors with column `place % heads` of the weights. Vectors and
// weights are fixed-point numbers whose lengths are bounded, so that no sum leaves 32 bits.

struct Job {
  products: u32,  // rows x heads
  heads: u32,
  depth: u32,     // numbers of a vector
  width: u32,     // threads in x of the dispatch; more fold into y
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> vectors: array<i32>;
@group(0) @binding(2) var<storage, read> weights: array<i32>;
@group(0) @binding(3) var<storage, read_write> products: array<i32>;

@compute @workgroup_size(64)
fn multiply(@builtin(global_invocation_id) id: vec3<u32>) {
  let place = id.x + id.y * job.width;
  if (place >= job.products) {
    return;
  }
  let row = (place / job.heads) * job.depth;
  let head = place % job.heads;
  var sum = 0i;
  for (var k = 0u; k < job.depth; k++) {
    sum += vectors[row + k] * weights[k * job.heads + head];
  }
  products[place] = sum;
}

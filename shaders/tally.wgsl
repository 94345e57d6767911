// Counts the literals of a playbook by document and category, so that no hit leaves the GPU.
//
// The walk is that of `scan.wgsl`. Where words end, each is looked at: one that must stand alone counts only if no
// word character goes on beside it. A symbol is a word character or not, so the neighbours' symbols say it.

struct Job {
  end: u32,         // the symbols whose ends count: `begin` up to `end`; more stand around them
  begin: u32,
  chunk: u32,       // symbols a thread owns
  chunks: u32,
  overlap: u32,
  row: u32,         // cells a state has in `table`
  width: u32,       // threads in x of the dispatch; more fold into y
  documents: u32,
  categories: u32,
  unused_a: u32,
  unused_b: u32,
  unused_c: u32,
  letters: array<vec4<u32>, 2>,   // a bit a symbol: whether it stands for word characters
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> text: array<vec4<u32>>;  // 16 symbols each
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read> first: array<u32>;   // state s: words[first[s]] up to words[first[s + 1]]
@group(0) @binding(4) var<storage, read> words: array<u32>;   // category << 16, length << 2, bits: alone right, alone left
@group(0) @binding(5) var<storage, read> starts: array<u32>;  // of the documents
@group(0) @binding(6) var<storage, read_write> counts: array<atomic<u32>>;

const ACCEPT: u32 = 0x80000000u;
const STATE: u32 = 0x7fffffffu;

fn symbol(place: u32) -> u32 {
  return (text[place >> 4u][(place >> 2u) & 3u] >> ((place & 3u) * 8u)) & 255u;
}

fn is_letter(place: u32) -> bool {
  let code = symbol(place);
  return ((job.letters[code >> 7u][(code >> 5u) & 3u] >> (code & 31u)) & 1u) == 1u;
}

@compute @workgroup_size(64)
fn tally(@builtin(global_invocation_id) id: vec3<u32>) {
  let owner = id.x + id.y * job.width;
  if (owner >= job.chunks) {
    return;
  }
  let start = job.begin + owner * job.chunk;
  let end = min(start + job.chunk, job.end);
  // The last document that begins at `start` or before.
  var document = 0u;
  var beyond = job.documents;
  while (beyond - document > 1u) {
    let middle = (document + beyond) / 2u;
    if (starts[middle] <= start) {
      document = middle;
    } else {
      beyond = middle;
    }
  }
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
    if (place < start) {
      continue;
    }
    // A document has a symbol at least, the break behind it.
    if (document + 1u < job.documents && starts[document + 1u] <= place) {
      document++;
    }
    if ((cell & ACCEPT) != 0u) {
      let number = state / job.row;
      for (var k = first[number]; k < first[number + 1u]; k++) {
        let word = words[k];
        let before = place - ((word >> 2u) & 0x3fffu);   // wraps to the highest number where the text begins
        let free_left = (word & 1u) == 0u || before > place || !is_letter(before);
        let free_right = (word & 2u) == 0u || !is_letter(place + 1u);
        if (free_left && free_right) {
          atomicAdd(&counts[document * job.categories + (word >> 16u)], 1u);
        }
      }
    }
  }
}

// The MinHash sketches of texts: of each text the smallest value that each of 128 permutations gives any of its shingles.
//
// A workgroup owns a piece of one text and every shingle that begins there. First a thread hashes the shingles that
// begin at its bytes, reading on as far as they go, and leaves them in workgroup memory; then each thread stands for one
// permutation, multiplication by an odd number, and goes over all of them. What a word, a shingle and their hashes are
// is said in `workers/analysis/shingles.py`; numbers of 64 bits are pairs here, the lower half first. Texts with words
// or shingles longer than this looks at, or with U+212A, whose lower case is a `k`, are marked and left to the host.

struct Job {
  pieces: u32,
  row: u32,             // workgroups in x of the dispatch; more fold into y
  ignore_numbers: u32,  // 1: words with a digit are none
  texts: u32,
}

struct Piece {
  begin: u32,  // its bytes of `data`: `begin` up to `end`
  end: u32,
  last: u32,   // where its text ends
  text: u32,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> data: array<u32>;  // UTF-8, 4 bytes each; a byte that is in no word before each text
@group(0) @binding(2) var<storage, read> pieces: array<Piece>;
@group(0) @binding(3) var<storage, read> factors: array<u32>;
// 128 numbers a text, the complements of its sketch, so that zero is none; then one a text: whether the host must do it.
@group(0) @binding(4) var<storage, read_write> sketches: array<atomic<u32>>;

const THREADS: u32 = 128u;
const STARTS: u32 = 2048u;   // half the bytes of a piece: a byte at least stands between two words
const SHINGLE_WORDS: u32 = 5u;
const LONG_WORD: u32 = 64u;
const LONG_SHINGLE: u32 = 2048u;
const FIRST = vec2<u32>(0x7f4a7c15u, 0x9e3779b9u);
const SECOND = vec2<u32>(0x1ce4e5b9u, 0xbf58476du);

var<workgroup> hashes: array<u32, STARTS>;
var<workgroup> found: atomic<u32>;

// The lower 64 bits of the product.
fn times(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let a0 = a.x & 0xffffu;
  let a1 = a.x >> 16u;
  let b0 = b.x & 0xffffu;
  let b1 = b.x >> 16u;
  let cross = a1 * b0 + ((a0 * b0) >> 16u);
  let carry = (cross & 0xffffu) + a0 * b1;
  let high = a1 * b1 + (cross >> 16u) + (carry >> 16u);
  return vec2<u32>(a.x * b.x, high + a.x * b.y + a.y * b.x);
}

fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + u32(low < a.x));
}

fn mixed(hash: vec2<u32>) -> vec2<u32> {
  var made = times(hash, FIRST);
  made.x ^= made.y;
  made = times(made, SECOND);
  made.x ^= made.y;
  return made;
}

fn byte_at(place: u32) -> u32 {
  return (data[place >> 2u] >> ((place & 3u) * 8u)) & 255u;
}

fn is_digit(byte: u32) -> bool {
  return byte - 48u < 10u;
}

fn is_inside(byte: u32) -> bool {
  return (byte | 32u) - 97u < 26u || is_digit(byte);
}

// The byte at `place`; the first one of U+0130 as the letter that it is in lower case, what follows it parts words.
fn letter_at(place: u32) -> u32 {
  let byte = byte_at(place);
  if (byte == 0xc4u && byte_at(place + 1u) == 0xb0u) {
    return 105u;
  }
  return byte;
}

// The hash of the shingle whose first word begins at `begin`, in `hash`.
struct Shingle {
  hash: u32,
  whole: bool,   // no text ended before its last word
  beyond: bool,  // it is longer than this looks at
}

fn shingle_at(begin: u32, last: u32) -> Shingle {
  var hash = vec2<u32>();
  var words = 0u;
  var word = vec2<u32>();
  var part = vec2<u32>();
  var length = 0u;
  var has_digit = false;
  // One byte more than there may be: the end of a text ends a word.
  for (var place = begin; place <= last; place++) {
    if (place - begin == LONG_SHINGLE) {
      return Shingle(0u, false, true);
    }
    var byte = 0u;
    if (place < last) {
      byte = letter_at(place);
    }
    if (is_inside(byte)) {
      if (length == LONG_WORD) {
        return Shingle(0u, false, true);
      }
      has_digit = has_digit || is_digit(byte);
      let bits = (byte | 32u) << ((length & 3u) * 8u);
      if ((length & 4u) == 0u) {
        part.x |= bits;
      } else {
        part.y |= bits;
      }
      length++;
      if ((length & 7u) == 0u) {
        word = mixed(word ^ part);
        part = vec2<u32>();
      }
      continue;
    }
    if (length == 0u) {
      continue;
    }
    if ((length & 7u) != 0u) {
      word = mixed(word ^ part);
    }
    let counts = !(has_digit && job.ignore_numbers == 1u);
    if (counts) {
      hash = plus(times(hash, FIRST), word);
      words++;
      if (words == SHINGLE_WORDS) {
        return Shingle(mixed(hash).x, true, false);
      }
    } else if (words == 0u) {
      break;
    }
    word = vec2<u32>();
    part = vec2<u32>();
    length = 0u;
    has_digit = false;
  }
  return Shingle(0u, false, false);
}

@compute @workgroup_size(128)
fn minhash(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let number = group.x + group.y * job.row;
  if (number >= job.pieces) {
    return;
  }
  let piece = pieces[number];
  // Not every implementation clears workgroup memory, which costs time where arrays are large.
  if (lane == 0u) {
    atomicStore(&found, 0u);
  }
  workgroupBarrier();
  for (var place = piece.begin + lane; place < piece.end; place += THREADS) {
    let byte = letter_at(place);
    if (byte == 0xe2u && byte_at(place + 1u) == 0x84u && byte_at(place + 2u) == 0xaau) {
      atomicStore(&sketches[job.texts * THREADS + piece.text], 1u);
    }
    if (is_inside(byte) && !is_inside(letter_at(place - 1u))) {
      let shingle = shingle_at(place, piece.last);
      if (shingle.whole) {
        hashes[atomicAdd(&found, 1u)] = shingle.hash;
      }
      if (shingle.beyond) {
        atomicStore(&sketches[job.texts * THREADS + piece.text], 1u);
      }
    }
  }
  workgroupBarrier();
  let count = atomicLoad(&found);
  let factor = factors[lane];
  var smallest = 0xffffffffu;
  for (var k = 0u; k < count; k++) {
    smallest = min(smallest, hashes[k] * factor);
  }
  atomicMax(&sketches[piece.text * THREADS + lane], ~smallest);
}

// The MinHash sketches of texts: of each text the smallest value that each of 128 permutations gives any of its shingles.
//
// A workgroup owns a piece of one text and every shingle that begins there. Each thread walks over 16 bytes, counts the
// words that begin in them and, once it is known how many stand before, leaves their hashes in workgroup memory; the last
// one walks on for the four words that shingles reach into what follows. Then threads make the shingles' hashes, and at
// last each stands for one permutation, multiplication by an odd number, and goes over all of them. What a word, a
// shingle and their hashes are is said in `workers/analysis/shingles.py`; numbers of 64 bits are pairs here, the lower
// half first. Texts with longer words or gaps than this looks at, or with U+212A, whose lower case is a `k`, are marked
// and left to the host.

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
const OWN: u32 = 16u;          // bytes of a thread
const WORDS: u32 = 1024u;      // half the bytes of a piece: a byte at least stands between two words
const SHINGLE_WORDS: u32 = 5u;
const ALL_WORDS: u32 = 1028u;  // with those of what follows
const LONG_WORD: u32 = 64u;
const FAR: u32 = 2048u;        // bytes behind a piece in which the rest of its last shingle is looked for
const FIRST = vec2<u32>(0x7f4a7c15u, 0x9e3779b9u);
const SECOND = vec2<u32>(0x1ce4e5b9u, 0xbf58476du);

var<workgroup> words: array<vec2<u32>, ALL_WORDS>;
var<workgroup> hashes: array<u32, WORDS>;
var<workgroup> sums: array<u32, THREADS>;
var<workgroup> following: u32;  // words behind the piece

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

fn leave_to_the_host(text: u32) {
  atomicStore(&sketches[job.texts * THREADS + text], 1u);
}

// Words that begin from `begin` to before `end`, and then up to `more` further ones, that count for shingles. With
// `keep` their hashes go into `words`, the first to `slot`.
fn walked(piece: Piece, begin: u32, end: u32, more: u32, keep: bool, slot: u32) -> u32 {
  var found = 0u;
  var wanted = 0xffffffffu;  // how many there may be, known when the last that begins before `end` has ended
  var skipped = is_inside(letter_at(begin - 1u));  // the rest of a word that begins before
  var word = vec2<u32>();
  var part = vec2<u32>();
  var length = 0u;
  var has_digit = false;
  // One byte more than there may be: the end of a text ends a word.
  for (var place = begin; place <= piece.last; place++) {
    if (place >= end && length == 0u) {
      wanted = min(wanted, found + more);
      if (found == wanted) {
        break;
      }
    }
    if (place == piece.end + FAR) {
      leave_to_the_host(piece.text);
      break;
    }
    var byte = 0u;
    if (place < piece.last) {
      byte = letter_at(place);
    }
    if (is_inside(byte)) {
      if (skipped) {
        continue;
      }
      if (length == LONG_WORD) {
        leave_to_the_host(piece.text);
        break;
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
    skipped = false;
    if (length == 0u) {
      continue;
    }
    if ((length & 7u) != 0u) {
      word = mixed(word ^ part);
    }
    if (!(has_digit && job.ignore_numbers == 1u)) {
      if (keep) {
        words[slot + found] = word;
      }
      found++;
    }
    word = vec2<u32>();
    part = vec2<u32>();
    length = 0u;
    has_digit = false;
  }
  return found;
}

fn shingle(first: u32) -> u32 {
  var hash = vec2<u32>();
  for (var k = 0u; k < SHINGLE_WORDS; k++) {
    hash = plus(times(hash, FIRST), words[first + k]);
  }
  return mixed(hash).x;
}

@compute @workgroup_size(128)
fn minhash(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let number = group.x + group.y * job.row;
  if (number >= job.pieces) {
    return;
  }
  let piece = pieces[number];
  let begin = min(piece.begin + lane * OWN, piece.end);
  let end = min(begin + OWN, piece.end);
  for (var place = begin; place < end; place++) {
    if (byte_at(place) == 0xe2u && byte_at(place + 1u) == 0x84u && byte_at(place + 2u) == 0xaau) {
      leave_to_the_host(piece.text);
    }
  }
  let own = walked(piece, begin, end, 0u, false, 0u);
  var sum = own;
  sums[lane] = sum;
  workgroupBarrier();
  for (var step = 1u; step < THREADS; step *= 2u) {
    if (lane >= step) {
      sum += sums[lane - step];
    }
    workgroupBarrier();
    sums[lane] = sum;
    workgroupBarrier();
  }
  let last = lane == THREADS - 1u;
  let more = select(0u, SHINGLE_WORDS - 1u, last && sum > 0u);
  let kept = walked(piece, begin, end, more, true, sum - own);
  if (last) {
    following = kept - own;
  }
  workgroupBarrier();
  let begun = sums[THREADS - 1u];
  let count = min(begun, max(begun + following, SHINGLE_WORDS - 1u) - (SHINGLE_WORDS - 1u));
  for (var k = lane; k < count; k += THREADS) {
    hashes[k] = shingle(k);
  }
  workgroupBarrier();
  let factor = factors[lane];
  var smallest = 0xffffffffu;
  for (var k = 0u; k < count; k++) {
    smallest = min(smallest, hashes[k] * factor);
  }
  atomicMax(&sketches[piece.text * THREADS + lane], ~smallest);
}

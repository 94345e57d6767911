// Makes symbols of texts: maps each character by the alphabet's table and keeps one of several blanks in a row.
//
// Texts are UTF-8 and each is followed by a byte 255, which no UTF-8 has and which becomes the break. A workgroup owns a
// tile of bytes, a thread 16 of them; a character belongs to where its first byte stands. `count` counts what is kept of
// each tile, `sum` makes of the counts where each tile's symbols begin, `write` writes them, and `begin` says where each
// text's begin.

struct Job {
  bytes: u32,
  tiles: u32,
  row: u32,    // workgroups in x of the dispatch of `count` and `write`; more fold into y
  texts: u32,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> table: array<u32>;                   // a byte a code point
@group(0) @binding(3) var<storage, read_write> places: array<u32>;            // one a tile, and the number of all symbols
@group(0) @binding(4) var<storage, read_write> symbols: array<atomic<u32>>;   // 4 each, zero at first
@group(0) @binding(5) var<storage, read> first: array<u32>;                   // the first byte of each text; all bytes
@group(0) @binding(6) var<storage, read_write> starts: array<u32>;

const THREADS: u32 = 256u;
const EACH: u32 = 16u;
const BREAK: u32 = 0u;
const WHITE: u32 = 1u;
const NONE: u32 = 256u;

var<workgroup> sums: array<u32, THREADS>;

fn byte_at(place: u32) -> u32 {
  return (data[place >> 4u][(place >> 2u) & 3u] >> ((place & 3u) * 8u)) & 255u;
}

fn goes_on(byte: u32) -> bool {
  return (byte & 0xc0u) == 0x80u;
}

// The symbol of the character whose first byte, `byte`, stands at `place`.
fn symbol_of(byte: u32, place: u32) -> u32 {
  if (byte == 255u) {
    return BREAK;
  }
  var point = byte;
  if (byte >= 0x80u) {
    let second = byte_at(place + 1u) & 63u;
    point = ((byte & 31u) << 6u) | second;
    if (byte >= 0xe0u) {
      let third = byte_at(place + 2u) & 63u;
      point = ((byte & 15u) << 12u) | (second << 6u) | third;
      if (byte >= 0xf0u) {
        point = ((byte & 7u) << 18u) | (second << 12u) | (third << 6u) | (byte_at(place + 3u) & 63u);
      }
    }
  }
  return (table[point >> 2u] >> ((point & 3u) * 8u)) & 255u;
}

// The symbol of the character before `place`.
fn symbol_before(place: u32) -> u32 {
  var before = place;
  for (var back = 0u; back < 4u && before > 0u; back++) {
    before--;
    let byte = byte_at(before);
    if (!goes_on(byte)) {
      return symbol_of(byte, before);
    }
  }
  return BREAK;
}

// Where the thread's bytes begin.
fn own(tile: u32, lane: u32) -> u32 {
  return (tile * THREADS + lane) * EACH;
}

// How many symbols are kept of the bytes `begin` to `end`.
fn kept(begin: u32, end: u32) -> u32 {
  var found = 0u;
  var before = symbol_before(begin);
  for (var place = begin; place < end; place++) {
    let byte = byte_at(place);
    if (!goes_on(byte)) {
      let symbol = symbol_of(byte, place);
      found += u32(symbol != WHITE || before != WHITE);
      before = symbol;
    }
  }
  return found;
}

// The sum of `value` over the threads up to this one.
fn summed(value: u32, lane: u32) -> u32 {
  var sum = value;
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
  return sum;
}

@compute @workgroup_size(256)
fn count(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = group.x + group.y * job.row;
  if (tile >= job.tiles) {
    return;
  }
  let begin = min(own(tile, lane), job.bytes);
  let sum = summed(kept(begin, min(begin + EACH, job.bytes)), lane);
  if (lane == THREADS - 1u) {
    places[tile] = sum;
  }
}

@compute @workgroup_size(256)
fn sum(@builtin(local_invocation_index) lane: u32) {
  let each = (job.tiles + THREADS - 1u) / THREADS;
  let begin = min(lane * each, job.tiles);
  let end = min(begin + each, job.tiles);
  var own_sum = 0u;
  for (var tile = begin; tile < end; tile++) {
    own_sum += places[tile];
  }
  let all = summed(own_sum, lane);
  var place = all - own_sum;
  for (var tile = begin; tile < end; tile++) {
    let size = places[tile];
    places[tile] = place;
    place += size;
  }
  if (lane == THREADS - 1u) {
    places[job.tiles] = all;
  }
}

@compute @workgroup_size(256)
fn write(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = group.x + group.y * job.row;
  if (tile >= job.tiles) {
    return;
  }
  let begin = min(own(tile, lane), job.bytes);
  let end = min(begin + EACH, job.bytes);
  let size = kept(begin, end);
  var slot = places[tile] + summed(size, lane) - size;
  // Up to four symbols that share a word go there together; other threads write the rest of it.
  var word = 0u;
  var before = symbol_before(begin);
  for (var place = begin; place < end; place++) {
    let byte = byte_at(place);
    if (goes_on(byte)) {
      continue;
    }
    let symbol = symbol_of(byte, place);
    if (symbol != WHITE || before != WHITE) {
      word |= symbol << ((slot & 3u) * 8u);
      if ((slot & 3u) == 3u) {
        atomicOr(&symbols[slot >> 2u], word);
        word = 0u;
      }
      slot++;
    }
    before = symbol;
  }
  if (word != 0u) {
    atomicOr(&symbols[slot >> 2u], word);
  }
}

@compute @workgroup_size(256)
fn begin(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x > job.texts) {
    return;
  }
  let place = first[id.x];
  let tile = place / (THREADS * EACH);
  starts[id.x] = places[tile] + kept(tile * THREADS * EACH, place);
}

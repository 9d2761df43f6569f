// A warp that works out decisions together (codec/team.h), and what the encoders of frames share: where a block keeps
// its frame, and how a body is laid out.
#pragma once
#include "codec/delta_choice.h"
#include "codec/frame_choice.h"
#include "codec/learned_choice.h"
#include "codec/plane_choice.h"
#include "codec/segments.h"
#include "codec/sparse_choice.h"
#include "codec/step_choice.h"
#include "cuda/frames.h"

namespace textnlp_fast::device {

struct WarpTeam {
  static constexpr unsigned kSize = simt::kWarp;
  double* terms;  // kSize of them, in shared memory

  [[nodiscard]] TEXTNLP_FAST_DEVICE unsigned lane() const { return simt::lane(); }

  [[nodiscard]] TEXTNLP_FAST_DEVICE std::int64_t sum(std::int64_t value) const {
    for (unsigned step = kSize / 2; step != 0; step /= 2) value += simt::shuffle(value, simt::lane() ^ step);
    return value;
  }

  [[nodiscard]] TEXTNLP_FAST_DEVICE double in_order(double sum, double term) const {
    terms[simt::lane()] = term;
    simt::sync_warp();
    for (unsigned n = 0; n < kSize; ++n) sum += terms[n];
    simt::sync_warp();
    return sum;
  }

  TEXTNLP_FAST_DEVICE void best(double& gain, int& index) const {
    for (unsigned step = kSize / 2; step != 0; step /= 2) {
      const double other = simt::shuffle(gain, simt::lane() ^ step);
      const int where = simt::shuffle(index, simt::lane() ^ step);
      const bool better = where >= 0 && (index < 0 || other > gain || (other == gain && where < index));
      gain = better ? other : gain;
      index = better ? where : index;
    }
  }

  TEXTNLP_FAST_DEVICE void sync() const { simt::sync_warp(); }
};

constexpr unsigned kEncodeThreads = 128;
constexpr unsigned kEncodeWarps = kEncodeThreads / simt::kWarp;
// The writer takes up to four segments, of up to eight planes.
constexpr unsigned kMostWritten = 4;
constexpr unsigned kMostStreams = kMostWritten * kMaxPlanes;

struct DeltaRoom {
  DeltaModel model;
  TableScratch scratch;
};

struct PlanesRoom {
  std::uint32_t counts[kMaxPlanes][256];  // and later the symbols
  std::uint8_t seen[kMaxPlanes][256];
  PlanePlan plans[kMaxPlanes];
  PlanePlan fine[kEncodeWarps];
  std::uint32_t raw_at[kMaxPlanes];
  bool noise[kMaxPlanes];
};

// Where a warp brings the events of a block into order.
struct EventsRoom {
  std::uint32_t spans[kEncodeWarps][kBlockElements];   // summed hazard before, and own hazard less 1 above bit 20
  std::uint16_t places[kEncodeWarps][kBlockElements];  // in the block
};

// The chances of a learned frame, and a group of its elements.
struct ChangesRoom {
  ChangeModel model;
  Token tokens[kLearnedGroup];
  std::uint8_t contexts[kLearnedGroup];
};
static_assert(kLearnedGroup == simt::kWarp);

struct PairStep {
  std::uint64_t inverse;
  std::uint32_t start;
  std::uint32_t freq;
  std::uint32_t log;
};

struct StreamPlace {
  std::uint32_t words;      // how many
  std::uint32_t first;      // of them, in the room for words
  std::uint32_t states_at;  // in the body
  std::uint32_t words_at;
};

struct EncodeShared {
  unsigned long long number;  // of the frame
  unsigned long long at;      // in the payload
  std::uint64_t best;         // bytes of the shortest body so far
  std::uint32_t result;       // of what is being tried: bytes, 0 if it is refused
  FrameMode mode;
  Dtype dtype;
  unsigned which;  // of the two bodies is the shortest
  std::uint32_t flag;
  unsigned long long counters[4];
  std::uint8_t header[16];
  unsigned segments;
  // Of sparse frames.
  DeltaRule rule;
  Split split;
  SparseRule kinds;
  bool hazards;
  std::uint64_t most;     // elements that may have changed
  std::uint64_t changed;  // that have
  float step;
  double values_bits;
  double steps_bits;
  double learned_bits;
  bool learned;  // the body is that of a learned frame
  std::uint32_t signs;
  std::uint64_t held;  // of these, in the pair's states
  std::uint32_t movable;
  std::uint32_t symbols;  // in the pair
  std::uint32_t listed;
  std::uint32_t events;
  std::uint64_t pair_states[2];
  std::uint32_t pair_words;
  std::uint32_t pair_at;

  double terms[kEncodeWarps][simt::kWarp];
  PairStep pair_steps[simt::kWarp];
  StreamPlace streams[kMostStreams];
  std::uint32_t states[kMostStreams][kLanes];
  union {
    DeltaRoom delta;
    PlanesRoom planes;
    SparseSurvey survey;
    EventsRoom events_room;
    PlaceModel chances;
    ChangesRoom changes;
    Edge edges[2 * kStepSamples];
  };

  // Nothing is set up: each use begins by filling its part.
  EncodeShared() = delete;
};

// What a 512-element block of a sparse frame tells.
struct BlockTold {
  std::uint32_t total;   // summed hazard
  std::uint32_t symbol;  // its first in the pair
  std::uint32_t listed;  // how many; then how many before
  std::uint32_t events;  // how many; and, above bit 10, how many before
};

// Room of a block in device memory, for frames of up to `bytes` bytes.
struct EncodeRoom {
  std::uint8_t* bodies[2];
  std::uint8_t* words;  // of lanes, or of the pair
  std::uint8_t* from;   // the listed elements' bases, then the events'
  std::uint8_t* to;
  std::uint64_t* places;   // of events: start, and share less 1 above bit 24
  std::uint32_t* symbols;  // of the pair
  std::uint32_t* masks;    // rows' changed lanes; of steps, groups' odd ones
  std::uint32_t* moves;    // of each group, directions before it
  std::uint32_t* directions;
  BlockTold* told;
};

constexpr std::size_t rounded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
constexpr std::size_t larger(std::size_t a, std::size_t b) { return a > b ? a : b; }

constexpr std::size_t words_room(std::size_t bytes) { return rounded(2 * bytes + 64 * kMostStreams + 64); }

// Events are rare among the elements that are not listed, for listing these would be cheaper otherwise: a sixteenth of
// those in the sample, which stands for no more than all, and a step.
constexpr std::size_t most_events(std::size_t elements) { return elements / 15 + 64; }

// Symbols in the pair: two bits a block, a bit and a place an event, and what the elements became. One by one these are
// few elements, as they are in learned frames; of steps a bit an element, and exceptions, which are refused where they
// take more than the raw frame.
constexpr std::size_t most_symbols(std::size_t elements, unsigned width) {
  const std::size_t few = elements < kMostPaired ? elements : kMostPaired;
  const std::size_t paired = few * (1 + (width * 8 + 15) / 16);
  const std::size_t learned = kLearnedSymbols * (elements < kMostLearned ? elements : kMostLearned);
  const std::size_t steps = width == 2 ? 2 * elements + elements / 2 : width == 4 ? 3 * elements + elements / 2 : 0;
  return 2 * (elements / kBlockElements + 1) + 2 * most_events(elements) + larger(larger(paired, learned), steps) + 64;
}

constexpr std::size_t symbols_room(std::size_t bytes) {
  return rounded(sizeof(std::uint32_t) * larger(larger(most_symbols(bytes, 1), most_symbols(bytes / 2, 2)),
                                                larger(most_symbols(bytes / 4, 4), most_symbols(bytes / 8, 8))));
}

struct RoomSizes {
  std::size_t body, words, elements, places, symbols, masks, told;

  explicit constexpr RoomSizes(std::size_t bytes)
      : body(rounded(bytes + 16)),
        words(words_room(bytes)),
        elements(rounded(bytes)),
        places(rounded(sizeof(std::uint64_t) * most_events(bytes))),
        symbols(symbols_room(bytes)),
        masks(rounded(bytes / 8 + 64)),
        told(rounded(sizeof(BlockTold) * (bytes / kBlockElements + 1))) {}

  [[nodiscard]] constexpr std::size_t sum() const {
    return 2 * body + words + 2 * elements + places + symbols + 3 * masks + told;
  }
};

TEXTNLP_FAST_DEVICE EncodeRoom room_at(std::uint8_t* at, std::size_t bytes) {
  const RoomSizes sizes(bytes);
  EncodeRoom room;
  auto take = [&](std::size_t size) {
    std::uint8_t* const taken = at;
    at += size;
    return taken;
  };
  room.bodies[0] = take(sizes.body);
  room.bodies[1] = take(sizes.body);
  room.words = take(sizes.words);
  room.from = take(sizes.elements);
  room.to = take(sizes.elements);
  room.places = reinterpret_cast<std::uint64_t*>(take(sizes.places));
  room.symbols = reinterpret_cast<std::uint32_t*>(take(sizes.symbols));
  room.masks = reinterpret_cast<std::uint32_t*>(take(sizes.masks));
  room.moves = reinterpret_cast<std::uint32_t*>(take(sizes.masks));
  room.directions = reinterpret_cast<std::uint32_t*>(take(sizes.masks));
  room.told = reinterpret_cast<BlockTold*>(take(sizes.told));
  return room;
}

// A frame and all that a block has to make a code of it.
struct Encoding {
  const std::uint8_t* target;
  const std::uint8_t* base;
  std::size_t size;  // bytes
  EncodeShared& shared;
  EncodeRoom room;

  [[nodiscard]] TEXTNLP_FAST_DEVICE WarpTeam team() const { return {shared.terms[simt::warp()]}; }
  [[nodiscard]] TEXTNLP_FAST_DEVICE std::uint8_t* body() const { return room.bodies[shared.which ^ 1]; }
};

// The bytes of a body, 0 if it does not fit or is not below the limit. (The limit of frames of one or two bytes is
// none.)
TEXTNLP_FAST_DEVICE std::uint32_t accepted(const Encoding& encoding, std::size_t bytes, std::size_t limit) {
  return bytes <= encoding.size && bytes < limit ? static_cast<std::uint32_t>(bytes) : 0;
}

// Moves bytes by `threads` threads, of which this is number `index`: whole words to round addresses, put together from
// two where the source lies otherwise. Reads no word that reaches out of the source.
TEXTNLP_FAST_DEVICE_CALL void copy_shifted(const std::uint8_t* from, std::uint8_t* to, std::size_t size, unsigned index,
                                           unsigned threads) {
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  std::size_t head = (kWord - reinterpret_cast<std::uintptr_t>(to) % kWord) % kWord;
  const auto off = static_cast<unsigned>((reinterpret_cast<std::uintptr_t>(from) + head) % kWord);
  if (off != 0) head += kWord;
  std::size_t words = 0;
  if (head + 2 * kWord <= size) {
    words = off == 0 ? (size - head) / kWord : (size - head + off) / kWord - 1;
    const auto* const source = reinterpret_cast<const std::uint64_t*>(from + head - off);
    auto* const sink = reinterpret_cast<std::uint64_t*>(to + head);
    for (std::size_t i = index; i < words; i += threads) {
      sink[i] = off == 0 ? source[i] : source[i] >> (8 * off) | source[i + 1] << (64 - 8 * off);
    }
  } else {
    head = 0;
  }
  for (std::size_t i = index; i < head; i += threads) to[i] = from[i];
  for (std::size_t i = head + words * kWord + index; i < size; i += threads) to[i] = from[i];
}

// --- segments ------------------------------------------------------------------------------------------------

struct SegmentsOf {
  std::size_t length;
  unsigned count;
  std::size_t room;  // words that one may take

  TEXTNLP_FAST_DEVICE SegmentsOf(std::size_t elements, unsigned segments, unsigned bits_each)
      : length(segment_length(elements, segments)),
        count(static_cast<unsigned>((elements + length - 1) / length)),
        room(length * bits_each / 16 + kLanes) {}

  [[nodiscard]] TEXTNLP_FAST_DEVICE std::size_t size(std::size_t elements, unsigned s) const {
    const std::size_t left = elements - s * length;
    return left < length ? left : length;
  }
};

// The words of a segment, written from their end by a warp: in each round the highest lane first.
struct WarpWriter {
  std::uint16_t* at;

  TEXTNLP_FAST_DEVICE void put(bool emit, std::uint32_t state) {
    const std::uint32_t lanes = simt::ballot(emit);
    if (emit) {
      const std::uint32_t above = lanes & ~simt::lanes_below() & ~(1u << simt::lane());
      at[-1 - static_cast<std::ptrdiff_t>(simt::count_bits(above))] = static_cast<std::uint16_t>(state);
    }
    at -= simt::count_bits(lanes);
  }

  TEXTNLP_FAST_DEVICE void put_symbol(bool active, std::uint32_t& state, EncodeSymbol symbol, unsigned log) {
    const bool emit = active && (state >> (32 - log)) >= symbol.freq;
    put(emit, state);
    if (emit) state >>= 16;
    if (active) state = ((state / symbol.freq) << log) + symbol.start + state % symbol.freq;
  }

  TEXTNLP_FAST_DEVICE void put_raw(bool active, std::uint32_t& state, std::uint32_t value, unsigned bits) {
    const bool emit = active && (static_cast<std::uint64_t>(state) << bits) >> 32 != 0;
    put(emit, state);
    if (emit) state >>= 16;
    if (active) state = state << bits | value;
  }
};

// Keeps what a warp made of a segment.
TEXTNLP_FAST_DEVICE void keep_stream(EncodeShared& shared, unsigned stream, std::uint32_t state,
                                     const std::uint16_t* begin, const std::uint16_t* end,
                                     const std::uint8_t* words_room) {
  shared.states[stream][simt::lane()] = state;
  if (simt::lane() != 0) return;
  shared.streams[stream].words = static_cast<std::uint32_t>(end - begin);
  shared.streams[stream].first = static_cast<std::uint32_t>(begin - reinterpret_cast<const std::uint16_t*>(words_room));
}

// Lays out `count` segments behind what `out` has, by one thread; returns where they end, which may be behind the end
// of the body: then nothing is to be copied.
TEXTNLP_FAST_DEVICE std::size_t lay_segments(EncodeShared& shared, unsigned first, unsigned count, std::uint8_t* body,
                                             std::size_t capacity, std::size_t at) {
  if (at < capacity) body[at] = static_cast<std::uint8_t>(count);
  ++at;
  for (unsigned s = first; s < first + count; ++s) {
    StreamPlace& stream = shared.streams[s];
    Sink length(body + (at < capacity ? at : capacity), at < capacity ? capacity - at : 0);
    length.varint(stream.words);
    if (length.full()) return capacity + 1;
    at += length.size();
    stream.states_at = static_cast<std::uint32_t>(at);
    at += sizeof shared.states[s];
    stream.words_at = static_cast<std::uint32_t>(at);
    at += 2 * static_cast<std::size_t>(stream.words);
  }
  return at;
}

// Copies the segments to their places, each by a warp.
TEXTNLP_FAST_DEVICE_CALL void copy_segments(const Encoding& encoding, unsigned first, unsigned count) {
  const EncodeShared& shared = encoding.shared;
  for (unsigned s = first + simt::warp(); s < first + count; s += kEncodeWarps) {
    const StreamPlace& stream = shared.streams[s];
    std::uint8_t* const states = encoding.body() + stream.states_at;
    store<std::uint32_t>(states, simt::lane(), shared.states[s][simt::lane()]);
    copy_shifted(encoding.room.words + 2 * static_cast<std::size_t>(stream.first), encoding.body() + stream.words_at,
                 2 * static_cast<std::size_t>(stream.words), simt::lane(), simt::kWarp);
  }
}

// A symbol in a word: its table takes the place of its counts.
TEXTNLP_FAST_DEVICE EncodeSymbol unpacked(std::uint32_t symbol) {
  return {static_cast<std::uint16_t>(symbol), static_cast<std::uint16_t>(symbol >> 16)};
}

// Shares to symbols, by a warp; `symbols` is a multiple of 32.
TEXTNLP_FAST_DEVICE_CALL void symbols_of_shares(const std::uint16_t* freq, unsigned used, unsigned symbols,
                                                std::uint32_t* out) {
  std::uint32_t before = 0;
  for (unsigned first = 0; first < symbols; first += simt::kWarp) {
    const unsigned s = first + simt::lane();
    const std::uint32_t share = s < used ? freq[s] : 0;
    std::uint32_t total = 0;
    const std::uint32_t below = simt::sum_below(share, &total);
    out[s] = share | (before + below) << 16;
    before += total;
  }
}

}  // namespace textnlp_fast::device

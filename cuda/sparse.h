// Decodes sparse and learned frames: a warp takes a frame. The pair that tells the places is one chain of steps, which
// all lanes follow; what is done in parallel is looking at the base, searching places, and the elements' values.
#pragma once
#include "codec/learned.h"
#include "codec/places.h"
#include "codec/segments.h"
#include "codec/sparse_rule.h"
#include "codec/step_formats.h"
#include "codec/steps.h"
#include "cuda/frames.h"
#include "cuda/token_tables.h"

namespace textnlp_fast::device {

// What a frame's places are kept in until their values come: which blocks are alive, and the events of each, a mask of
// rows for every column.
struct Places {
  std::uint32_t* alive;   // a bit a block
  std::uint16_t* events;  // kLanes a block

  static constexpr std::size_t kBytesPerBlock = kLanes * sizeof(std::uint16_t);
};

constexpr std::size_t kAliveBits = 32;

// Bytes that a warp needs to decode sparse frames of up to `elements` elements.
constexpr std::size_t sparse_workspace(std::size_t elements) {
  const std::size_t blocks = (elements + kBlockElements - 1) / kBlockElements;
  const std::size_t words = (blocks + kAliveBits - 1) / kAliveBits;
  return (words * sizeof(std::uint32_t) + blocks * Places::kBytesPerBlock + 15) / 16 * 16;
}

// The chances of a frame, spread over the lanes' registers.
class WarpChances {
 public:
  static constexpr unsigned kAlive = 0;
  static constexpr unsigned kMore = 2;
  static constexpr unsigned kGroup = kMore + PlaceModel::kBuckets * PlaceModel::kCounts;
  static constexpr unsigned kHere = kGroup + 1;
  static constexpr unsigned kStayed = kGroup + 2;
  static_assert(kStayed < 3 * simt::kWarp);

  TEXTNLP_FAST_DEVICE bool read(PairReader& in, unsigned number) {
    const std::uint32_t mine = number < 32 ? first_ : number < 64 ? second_ : third_;
    const std::uint32_t held = simt::shuffle(mine, number % simt::kWarp);
    Chance chance;
    chance.one = static_cast<std::uint16_t>(held);
    chance.seen = static_cast<std::uint16_t>(held >> 16);
    const bool bit = read_bit(in, chance);
    if (simt::lane() == number % simt::kWarp) {
      const std::uint32_t learned = chance.one | static_cast<std::uint32_t>(chance.seen) << 16;
      (number < 32 ? first_ : number < 64 ? second_ : third_) = learned;
    }
    return bit;
  }

 private:
  std::uint32_t first_ = 32768;
  std::uint32_t second_ = 32768;
  std::uint32_t third_ = 32768;
};

// Changes of a learned frame whose signs come last.
struct WaitingChanges {
  std::uint32_t places[kSignsInStates];
  std::uint64_t sizes[kSignsInStates];
};

struct SparseShared {
  DeltaRule rule;
  SparseRule kinds;
  Telling telling;
  float step;
  bool valid;
  ByteReader reader;  // behind what lane 0 read
  unsigned segment_count;
  SegmentParts segments[kMaxSegments];
  std::uint16_t before[kBlockRows][kLanes];
  std::uint32_t queue[kBlockElements + 2 * kLanes];
  union {
    // Starts by token; shares while they are read.
    std::uint16_t starts[kMaxContexts][kMaxTokens];
    WaitingChanges waiting;
  };
};

// Reads what stands before the pair, by one lane.
TEXTNLP_FAST_DEVICE bool read_sparse(const DeviceFrame& frame, SparseShared& shared) {
  ByteReader reader{frame.body_dev, frame.body_dev, frame.body_dev + frame.body_size};
  Split split;
  DeltaRule& rule = shared.rule;
  const bool learned = frame.mode == FrameMode::learned;
  if (!learned && !read_telling(reader, shared.telling)) return false;
  if (!read_split(reader, frame.dtype, rule, split)) return false;
  shared.kinds = sparse_rule(rule, split);
  if (learned) {
    rule.scheme = read_scheme(reader);
    if (reader.failed) return false;
  } else if (shared.telling == Telling::as_steps) {
    if (!read_step(reader, frame.dtype, shared.step)) return false;
  } else if (!read_coding(reader, frame.dtype, rule, shared.starts)) {
    return false;
  }
  shared.reader = reader;
  return true;
}

// --- places --------------------------------------------------------------------------------------------------

// A lane's column of a block: its elements' summed hazards, and the rows that are listed.
struct Column {
  std::uint32_t hazards;
  std::uint32_t listed;
};

// What an element of the base is in a sparse frame.
struct Kind {
  bool listed;
  std::uint32_t hazard;
};

template <class U>
TEXTNLP_FAST_DEVICE Kind kind_of(U base, const SparseRule& rule) {
  const unsigned field = context_field(base, rule.element);
  const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
  return {context < rule.listed, context < rule.contexts ? rule.hazards[context] : 0u};
}

// Looks at the column of this lane in the block from element `at` on.
template <class U>
TEXTNLP_FAST_DEVICE Column scan_column(const std::uint8_t* base, std::size_t at, std::size_t count,
                                       SparseShared& shared) {
  Column column{0, 0};
  TEXTNLP_FAST_UNROLL
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const std::size_t i = at + row * kLanes + simt::lane();
    shared.before[row][simt::lane()] = static_cast<std::uint16_t>(column.hazards);
    if (i < count) {
      const Kind kind = kind_of(load<U>(base, i), shared.kinds);
      column.hazards += kind.hazard;
      column.listed |= (kind.listed ? 1u : 0u) << row;
    }
  }
  return column;
}

// The highest lane that votes; lane 0 does.
TEXTNLP_FAST_DEVICE unsigned last_of(bool vote) { return floor_log2(simt::ballot(vote)); }

// The events of a block: a mask of rows for this lane's column. False if there cannot be such.
TEXTNLP_FAST_DEVICE bool take_events(PairReader& in, WarpChances& chances, const Column& column,
                                     const SparseShared& shared, std::uint32_t* rows, unsigned* count) {
  *rows = 0;
  *count = 0;
  std::uint32_t total = 0;
  const std::uint32_t begin = simt::sum_below(column.hazards, &total);
  if (total == 0) return true;
  const unsigned more = WarpChances::kMore + floor_log2(total) * PlaceModel::kCounts;
  while (chances.read(in, more + (*count < PlaceModel::kCounts ? *count : PlaceModel::kCounts - 1))) {
    if (++*count > kBlockElements) return false;
  }
  std::uint32_t from = 0;
  for (unsigned n = 0; n < *count; ++n) {
    if (total == from) return false;
    const Spread spread(total - from, *count - n);
    const std::uint32_t slot = in.slot(kPlaceLog);
    // Of the columns, then of the rows in it, the last that begins at the slot or before: one without hazard begins
    // where the next does, and what lies before `from` has no share.
    const unsigned at = last_of(spread.reach(begin > from ? begin - from : 0) <= slot);
    const std::uint32_t above = simt::shuffle(begin, at);
    const std::uint32_t width = simt::shuffle(column.hazards, at);
    const unsigned row_of_lane = simt::lane() % kBlockRows;
    const std::uint32_t place = above + shared.before[row_of_lane][at];
    const std::uint32_t reached = spread.reach(place > from ? place - from : 0);
    const unsigned row = last_of(reached <= slot && simt::lane() < kBlockRows);
    const std::uint32_t start = simt::shuffle(reached, row);
    const std::uint32_t end = above + (row + 1 < kBlockRows ? shared.before[row + 1][at] : width);
    in.advance(start, spread.reach(end - from) - start, kPlaceLog);
    if (simt::lane() == at) *rows |= 1u << row;
    from = end;
  }
  return true;
}

struct Found {
  std::size_t listed;
  std::size_t events;
  [[nodiscard]] TEXTNLP_FAST_DEVICE std::size_t total() const { return listed + events; }
};

// Reads the places of a frame. False if they are not valid.
template <class U>
TEXTNLP_FAST_DEVICE bool take_places(const std::uint8_t* base, std::size_t count, PairReader& in, WarpChances& chances,
                                     SparseShared& shared, const Places& places, Found* found) {
  *found = {0, 0};
  bool was_alive = true;
  std::uint32_t alive_bits = 0;
  for (std::size_t at = 0, block = 0; at < count; at += kBlockElements, ++block) {
    const bool alive = shared.kinds.listed == 0 || chances.read(in, WarpChances::kAlive + (was_alive ? 1 : 0));
    was_alive = alive;
    std::uint32_t rows = 0;
    if (alive) {
      const Column column = scan_column<U>(base, at, count, shared);
      simt::sync_warp();
      unsigned events = 0;
      if (!take_events(in, chances, column, shared, &rows, &events) || in.overrun) return false;
      std::uint32_t listed = 0;
      (void)simt::sum_below(simt::count_bits(column.listed), &listed);
      found->listed += listed;
      found->events += events;
      simt::sync_warp();
    }
    places.events[block * kLanes + simt::lane()] = static_cast<std::uint16_t>(rows);
    alive_bits |= (alive ? 1u : 0u) << block % kAliveBits;
    if (block % kAliveBits == kAliveBits - 1 || at + kBlockElements >= count) {
      if (simt::lane() == 0) places.alive[block / kAliveBits] = alive_bits;
      alive_bits = 0;
    }
  }
  simt::sync_warp();
  return true;
}

// --- the row of elements -------------------------------------------------------------------------------------

// Goes through the elements that are told, 32 at a time: the listed ones, then the events.
template <class U>
class Row {
 public:
  TEXTNLP_FAST_DEVICE Row(const std::uint8_t* base, std::size_t count, SparseShared& shared, const Places& places)
      : base_(base), count_(count), shared_(shared), places_(places) {}

  // How many there are, at most 32; this lane's place in the frame in `*place`, if it has one.
  TEXTNLP_FAST_DEVICE unsigned next(std::uint32_t* place) {
    while (waiting_ < kLanes && !done_) fill();
    const unsigned have = waiting_ < kLanes ? waiting_ : kLanes;
    *place = simt::lane() < have ? shared_.queue[first_ + simt::lane()] : 0;
    simt::sync_warp();
    first_ += have;
    waiting_ -= have;
    return have;
  }

 private:
  // Adds those of the next block.
  TEXTNLP_FAST_DEVICE void fill() {
    // What is left, less than a warp, moves to the front.
    const std::uint32_t kept = simt::lane() < waiting_ ? shared_.queue[first_ + simt::lane()] : 0;
    simt::sync_warp();
    if (simt::lane() < waiting_) shared_.queue[simt::lane()] = kept;
    first_ = 0;
    const std::size_t at = block_ * kBlockElements;
    if (events_) {
      const std::uint32_t rows = places_.events[block_ * kLanes + simt::lane()];
      std::uint32_t total = 0;
      std::uint32_t to = waiting_ + simt::sum_below(simt::count_bits(rows), &total);
      for (std::uint32_t left = rows; left != 0; left &= left - 1) {
        shared_.queue[to++] = static_cast<std::uint32_t>(at) + simt::lowest_bit(left) * kLanes + simt::lane();
      }
      waiting_ += total;
    } else if ((places_.alive[block_ / kAliveBits] >> block_ % kAliveBits & 1) != 0) {
      for (unsigned row = 0; row < kBlockRows; ++row) {
        const std::size_t i = at + row * kLanes + simt::lane();
        const bool listed = i < count_ && kind_of(load<U>(base_, i), shared_.kinds).listed;
        const std::uint32_t lanes = simt::ballot(listed);
        if (listed)
          shared_.queue[waiting_ + simt::count_bits(lanes & simt::lanes_below())] = static_cast<std::uint32_t>(i);
        waiting_ += simt::count_bits(lanes);
      }
    }
    simt::sync_warp();
    if (++block_ * kBlockElements >= count_) {
      done_ = events_;
      events_ = true;
      block_ = 0;
    }
  }

  const std::uint8_t* base_;
  std::size_t count_;
  SparseShared& shared_;
  const Places& places_;
  std::size_t block_ = 0;
  bool events_ = false;
  bool done_ = false;
  unsigned first_ = 0;
  unsigned waiting_ = 0;
};

// --- values --------------------------------------------------------------------------------------------------

template <class U>
TEXTNLP_FAST_DEVICE unsigned context_of(U base, const DeltaRule& rule) {
  const unsigned field = context_field(base, rule.element);
  const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
  return context < rule.contexts ? context : rule.contexts - 1;
}

// Coder 0: one by one from the pair.
template <class U>
TEXTNLP_FAST_DEVICE void take_paired(PairReader& in, SparseShared& shared, Row<U>& row, std::uint8_t* out) {
  const DeltaRule rule = shared.rule;
  std::uint32_t place = 0;
  for (unsigned have = row.next(&place); have != 0; have = row.next(&place)) {
    const U from = simt::lane() < have ? load<U>(out, place) : U{0};
    U to = from;
    for (unsigned n = 0; n < have; ++n) {
      const U base = simt::shuffle(from, n);
      const std::uint16_t* const starts = shared.starts[context_of(base, rule)];
      const std::uint32_t slot = in.slot(rule.table_log);
      // The last token that starts at the slot or before: by fours, then by ones.
      const unsigned fours = 4 * last_of(starts[4 * simt::lane()] <= slot);
      const unsigned token = fours + last_of(simt::lane() < 4 && starts[fours + simt::lane() % 4] <= slot);
      in.advance(starts[token], share_at(starts, kMaxTokens, rule.table_log, token), rule.table_log);
      const unsigned bits = raw_bits_of(token, rule.scheme);
      std::uint64_t raw = 0;
      for (unsigned done = 0; done < bits; done += 16) {
        raw |= static_cast<std::uint64_t>(in.bits(bits - done < 16 ? bits - done : 16)) << done;
      }
      const U residual = residual_of_token<U>(token, raw, rule.scheme);
      if (simt::lane() == n) to = apply_residual(base, residual, rule.element.is_float);
    }
    if (simt::lane() < have) store<U>(out, place, to);
  }
}

// Coder 1: segments of lanes, one after the other.
template <class U>
TEXTNLP_FAST_DEVICE bool take_lanes(SparseShared& shared, Row<U>& row, std::uint8_t* out) {
  const DeltaRule rule = shared.rule;
  for (unsigned s = 0; s < shared.segment_count; ++s) {
    const SegmentParts segment = shared.segments[s];
    std::uint32_t state = load<std::uint32_t>(segment.states, simt::lane());
    WarpWords words{segment.words, segment.end, false};
    if (simt::ballot(state < kStateFloor) != 0) return false;
    for (std::size_t step = 0; step < segment.count; step += kLanes) {
      std::uint32_t place = 0;
      const bool active = simt::lane() < row.next(&place);
      const U from = active ? load<U>(out, place) : U{0};
      unsigned token = 0;
      unsigned bits = 0;
      if (active) {
        const std::uint16_t* const starts = shared.starts[context_of(from, rule)];
        const std::uint32_t slot = state & ((1u << rule.table_log) - 1);
        token = symbol_from(starts, kMaxTokens, 0, slot);
        state = share_at(starts, kMaxTokens, rule.table_log, token) * (state >> rule.table_log) + slot - starts[token];
        bits = raw_bits_of(token, rule.scheme);
      }
      state = refill(state, words);
      std::uint64_t raw = 0;
      for (unsigned taken = 0; simt::ballot(bits > taken) != 0; taken += 16) {
        const unsigned left = bits > taken ? bits - taken : 0;
        const unsigned now = left < 16 ? left : 16;
        raw |= static_cast<std::uint64_t>(state & ((1u << now) - 1)) << taken;
        state = refill(state >> now, words);
      }
      if (active) {
        const U residual = residual_of_token<U>(token, raw, rule.scheme);
        store<U>(out, place, apply_residual(from, residual, rule.element.is_float));
      }
    }
    if (simt::ballot(state != kStateFloor || words.overrun || words.at != words.end) != 0) return false;
  }
  return true;
}

template <class Format>
TEXTNLP_FAST_DEVICE typename Format::Word stepped(typename Format::Word from, float step) {
  if ((from & Format::kExponent) == Format::kExponent) return from;
  // Rounded by itself: nothing to fuse it with.
  return Format::narrow(Format::wide(from) + step);
}

// Coder 2: a direction for each element that can move, and exceptions from the pair.
template <class Format>
TEXTNLP_FAST_DEVICE bool take_moves(PairReader& in, WarpChances& chances, SparseShared& shared,
                                    Row<typename Format::Word>& row, const Found& found, std::uint8_t* out) {
  using Word = typename Format::Word;
  const std::uint8_t* const directions = shared.reader.at;
  const auto bytes = static_cast<std::size_t>(shared.reader.end - directions);
  std::size_t movable = 0;
  std::size_t first = 0;
  std::uint32_t place = 0;
  for (unsigned have = row.next(&place); have != 0; first += have, have = row.next(&place)) {
    const bool active = simt::lane() < have;
    const Word from = active ? load<Word>(out, place) : Word{0};
    const Word up = stepped<Format>(from, shared.step);
    const Word down = stepped<Format>(from, -shared.step);
    const bool can = active && (up != from || down != from);
    const std::uint32_t able = simt::ballot(can);
    const std::size_t bit = movable + simt::count_bits(able & simt::lanes_below());
    movable += simt::count_bits(able);
    if (movable > 8 * bytes) return false;
    Word to = from;
    if (can) to = (directions[bit / 8] >> bit % 8 & 1) != 0 ? up : down;
    if (chances.read(in, WarpChances::kGroup)) {
      for (unsigned n = 0; n < have; ++n) {
        if (!chances.read(in, WarpChances::kHere)) continue;
        const bool listed = first + n < found.listed;
        Word is = simt::shuffle(from, n);
        if (!listed || (able >> n & 1) == 0 || !chances.read(in, WarpChances::kStayed)) {
          is = 0;
          for (unsigned done = 0; done < 8 * sizeof(Word); done += 16) {
            is = static_cast<Word>(is | static_cast<Word>(in.bits(16)) << done);
          }
        }
        if (simt::lane() == n) to = is;
      }
    }
    if (active) store<Word>(out, place, to);
  }
  return (movable + 7) / 8 == bytes;
}

}  // namespace textnlp_fast::device

// What changed, in sparse frames, and where: by a block, whose warps take blocks of 512 elements.
#pragma once
#include "codec/places.h"
#include "cuda/encode_pair.h"

namespace textnlp_fast::device {

// How many elements may have changed for a sparse code to be looked for, in shared.most.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void find_most_changed(const Encoding& encoding, std::size_t count) {
  EncodeShared& shared = encoding.shared;
  if (simt::thread() < 2) shared.counters[simt::thread()] = 0;
  simt::sync_block();
  const std::size_t looked = count <= kSmallTensor ? 0 : (count / kBlockElements - 1) / kBlockStride + 1;
  for (std::size_t n = simt::warp(); n < looked; n += kEncodeWarps) {
    const std::size_t at = n * kBlockStride * kBlockElements;
    const std::size_t part = n % kGlanceParts * kPartElements;
    bool any = false;
    unsigned changed = 0;
    TEXTNLP_FAST_UNROLL
    for (unsigned i = simt::lane(); i < kBlockElements; i += simt::kWarp) {
      const bool differs = load<U>(encoding.target, at + i) != load<U>(encoding.base, at + i);
      any = any || differs;
      changed += differs && i - part < kPartElements ? 1 : 0;
    }
    std::uint32_t total = 0;
    (void)simt::sum_below(changed, &total);
    const bool stayed = simt::ballot(any) == 0;
    if (simt::lane() == 0) simt::atomic_add(&shared.counters[stayed ? 0 : 1], stayed ? 1ull : total);
  }
  simt::sync_block();
  if (simt::thread() == 0) {
    shared.most =
        count <= kSmallTensor ? count : choice::most_changed(count, looked, shared.counters[0], shared.counters[1]);
  }
  simt::sync_block();
}

// Masks of what changed in each row, and how often by field.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void survey(const Encoding& encoding, std::size_t count, ElementRule rule) {
  EncodeShared& shared = encoding.shared;
  SparseSurvey& found = shared.survey;
  for (unsigned field = simt::thread(); field <= kMaxContextField; field += kEncodeThreads) {
    found.changed_by_field[field] = 0;
    found.sampled[field] = 0;
  }
  if (simt::thread() == 0) shared.counters[0] = 0;
  simt::sync_block();
  constexpr unsigned kRows = 8;  // at a time, so that their elements come together
  static_assert(kRows == kSampleSteps);
  const std::size_t rows = blocks_of(count) * kBlockRows;
  unsigned long long changed = 0;
  for (std::size_t first = simt::warp() * kRows; first < rows; first += kEncodeWarps * kRows) {
    U from[kRows];
    U to[kRows];
    TEXTNLP_FAST_UNROLL
    for (unsigned row = 0; row < kRows; ++row) {
      const std::size_t i = (first + row) * kLanes + simt::lane();
      from[row] = i < count ? load<U>(encoding.base, i) : U{0};
      to[row] = i < count ? load<U>(encoding.target, i) : U{0};
    }
    TEXTNLP_FAST_UNROLL
    for (unsigned row = 0; row < kRows; ++row) {
      const std::size_t i = (first + row) * kLanes + simt::lane();
      const bool differs = to[row] != from[row];
      const std::uint32_t mask = simt::ballot(differs);
      if (simt::lane() == 0) encoding.room.masks[first + row] = mask;
      changed += simt::count_bits(mask);
      if (differs) simt::atomic_add(&found.changed_by_field[context_field(from[row], rule)], 1u);
      if (row == 0 && i < count) simt::atomic_add(&found.sampled[context_field(from[row], rule)], kSampleSteps + 0u);
    }
  }
  if (simt::lane() == 0) simt::atomic_add(&shared.counters[0], changed);
  simt::sync_block();
  if (simt::thread() == 0) shared.changed = found.changed = shared.counters[0];
  simt::sync_block();
}

// A lane's column of a block: summed hazard, and the rows that are listed and that are events.
struct EncodeColumn {
  std::uint32_t hazards;
  std::uint32_t listed;
  std::uint32_t events;
};

template <class U>
TEXTNLP_FAST_DEVICE std::uint32_t hazard_at(const Encoding& encoding, std::size_t i, bool* listed) {
  const SparseRule& rule = encoding.shared.kinds;
  const unsigned field = context_field(load<U>(encoding.base, i), rule.element);
  const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
  *listed = context < rule.listed;
  return context < rule.contexts ? rule.hazards[context] : 0u;
}

template <class U>
TEXTNLP_FAST_DEVICE EncodeColumn look_at_column(const Encoding& encoding, std::size_t block, std::size_t count) {
  EncodeColumn column{0, 0, 0};
  TEXTNLP_FAST_UNROLL
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const std::size_t i = block * kBlockElements + row * kLanes + simt::lane();
    if (i >= count) continue;
    bool listed = false;
    column.hazards += hazard_at<U>(encoding, i, &listed);
    const bool changed = (encoding.room.masks[block * kBlockRows + row] >> simt::lane() & 1) != 0;
    column.listed |= (listed ? 1u : 0u) << row;
    column.events |= (changed && !listed ? 1u : 0u) << row;
  }
  return column;
}

// Whether anything in a block changed; a warp's answer.
TEXTNLP_FAST_DEVICE bool block_changed(const Encoding& encoding, std::size_t block) {
  const bool changed = simt::lane() < kBlockRows && encoding.room.masks[block * kBlockRows + simt::lane()] != 0;
  return simt::ballot(changed) != 0;
}

// A block's entry while it only has numbers: bit 31 of `total` says that something changed.
constexpr std::uint32_t kAlive = 1u << 31;

// What each block will tell.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void measure_blocks(const Encoding& encoding, std::size_t count) {
  const EncodeShared& shared = encoding.shared;
  for (std::size_t block = simt::warp(); block < blocks_of(count); block += kEncodeWarps) {
    const bool changed = block_changed(encoding, block);
    BlockTold told{changed ? kAlive : 0, 0, 0, 0};
    if (changed || (shared.kinds.listed == 0 && shared.hazards)) {
      const EncodeColumn column = look_at_column<U>(encoding, block, count);
      std::uint32_t total = 0;
      (void)simt::sum_below(column.hazards, &total);
      (void)simt::sum_below(simt::count_bits(column.listed), &told.listed);
      (void)simt::sum_below(simt::count_bits(column.events), &told.events);
      told.total |= total;
      if (total == 0) told.events = 0;
    }
    if (simt::lane() == 0) encoding.room.told[block] = told;
  }
  simt::sync_block();
}

constexpr unsigned kEventBits = 10;  // a block has at most 512

// Where in the pair and in the row of elements each block's part goes; by one warp.
TEXTNLP_FAST_DEVICE_CALL void place_blocks(const Encoding& encoding, std::size_t count) {
  EncodeShared& shared = encoding.shared;
  const bool alive_told = shared.kinds.listed != 0;
  std::uint32_t symbols = 0;
  std::uint32_t listed = 0;
  std::uint32_t events = 0;
  for (std::size_t first = 0; first < blocks_of(count); first += simt::kWarp) {
    const std::size_t block = first + simt::lane();
    BlockTold told{0, 0, 0, 0};
    const bool mine = block < blocks_of(count);
    if (mine) told = encoding.room.told[block];
    const std::uint32_t counted = (told.total & ~kAlive) != 0 ? 2 * told.events + 1 : 0;
    std::uint32_t total = 0;
    const std::uint32_t symbol = symbols + simt::sum_below(mine ? counted + (alive_told ? 1 : 0) : 0, &total);
    symbols += total;
    const std::uint32_t listed_before = listed + simt::sum_below(told.listed, &total);
    listed += total;
    const std::uint32_t events_before = events + simt::sum_below(told.events, &total);
    events += total;
    if (mine)
      encoding.room.told[block] = {told.total, symbol, listed_before, told.events | events_before << kEventBits};
  }
  if (simt::lane() != 0) return;
  shared.symbols = symbols;
  shared.listed = listed;
  shared.events = events;
}

// Tells where a block's events are, and collects its elements; by a warp.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void tell_block(const Encoding& encoding, std::size_t block, const BlockTold& told,
                                         std::size_t count) {
  EncodeShared& shared = encoding.shared;
  std::uint32_t* const spans = shared.events_room.spans[simt::warp()];
  std::uint16_t* const order = shared.events_room.places[simt::warp()];
  const EncodeColumn column = look_at_column<U>(encoding, block, count);
  const std::size_t at = block * kBlockElements;
  std::uint32_t listed = told.listed;
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const bool here = (column.listed >> row & 1) != 0;
    const std::uint32_t lanes = simt::ballot(here);
    if (here) {
      const std::size_t i = at + row * kLanes + simt::lane();
      const std::size_t to = listed + simt::count_bits(lanes & simt::lanes_below());
      store<U>(encoding.room.from, to, load<U>(encoding.base, i));
      store<U>(encoding.room.to, to, load<U>(encoding.target, i));
    }
    listed += simt::count_bits(lanes);
  }
  const std::uint32_t total = told.total & ~kAlive;
  const std::uint32_t events = told.events & ((1u << kEventBits) - 1);
  if (events == 0) return;
  const std::uint32_t events_before = told.events >> kEventBits;
  std::uint32_t all = 0;
  std::uint32_t before = simt::sum_below(column.hazards, &all);
  std::uint32_t n = simt::sum_below(simt::count_bits(column.events), &all);
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const std::size_t i = at + row * kLanes + simt::lane();
    if (i >= count) break;
    bool is_listed = false;
    const std::uint32_t hazard = hazard_at<U>(encoding, i, &is_listed);
    if ((column.events >> row & 1) != 0) {
      spans[n] = before | (hazard - 1) << 20;
      order[n++] = static_cast<std::uint16_t>(row * kLanes + simt::lane());
    }
    before += hazard;
  }
  simt::sync_warp();
  const std::uint32_t first_symbol = told.symbol + (shared.kinds.listed != 0 ? 1 : 0) + events + 1;
  for (n = simt::lane(); n < events; n += simt::kWarp) {
    auto begin_of = [&](std::uint32_t e) { return spans[e] & 0xfffff; };
    auto end_of = [&](std::uint32_t e) { return begin_of(e) + (spans[e] >> 20) + 1; };
    const std::uint32_t from = n == 0 ? 0 : end_of(n - 1);
    const Spread spread(total - from, events - n);
    const std::uint32_t start = spread.reach(begin_of(n) - from);
    const std::uint32_t share = spread.reach(end_of(n) - from) - start;
    encoding.room.places[events_before + n] = start | static_cast<std::uint64_t>(share - 1) << kPlaceLog;
    encoding.room.symbols[first_symbol + n] = place_symbol(events_before + n);
    const std::size_t to = shared.listed + events_before + n;
    store<U>(encoding.room.from, to, load<U>(encoding.base, at + order[n]));
    store<U>(encoding.room.to, to, load<U>(encoding.target, at + order[n]));
  }
  simt::sync_warp();
}

// The bits of the blocks, whose chances are learned from block to block: a chain, by one thread.
TEXTNLP_FAST_DEVICE_CALL void tell_bits(const Encoding& encoding, std::size_t count) {
  EncodeShared& shared = encoding.shared;
  PlaceModel& model = shared.chances;
  for (Chance& chance : model.alive) chance = Chance{};
  for (auto& bucket : model.more) {
    for (Chance& chance : bucket) chance = Chance{};
  }
  bool was_alive = true;
  for (std::size_t block = 0; block < blocks_of(count); ++block) {
    const BlockTold told = encoding.room.told[block];
    std::uint32_t* to = encoding.room.symbols + told.symbol;
    if (shared.kinds.listed != 0) {
      const bool alive = (told.total & kAlive) != 0;
      *to++ = bit_symbol(model.alive[was_alive ? 1 : 0], alive);
      was_alive = alive;
    }
    const std::uint32_t total = told.total & ~kAlive;
    if (total == 0) continue;
    Chance* const more = model.more[floor_log2(total)];
    const std::uint32_t events = told.events & ((1u << kEventBits) - 1);
    for (std::uint32_t n = 0; n <= events; ++n) {
      *to++ = bit_symbol(more[n < PlaceModel::kCounts ? n : PlaceModel::kCounts - 1], n < events);
    }
  }
}

// All of the places: symbols, and the row of elements.
template <class U>
TEXTNLP_FAST_DEVICE void tell_places(const Encoding& encoding, std::size_t count) {
  measure_blocks<U>(encoding, count);
  if (simt::warp() == 0) place_blocks(encoding, count);
  simt::sync_block();
  for (std::size_t block = simt::warp(); block < blocks_of(count); block += kEncodeWarps) {
    const BlockTold told = encoding.room.told[block];
    if ((told.total & kAlive) != 0) tell_block<U>(encoding, block, told, count);
  }
  simt::sync_block();
  if (simt::thread() == 0) tell_bits(encoding, count);
  simt::sync_block();
}

}  // namespace textnlp_fast::device

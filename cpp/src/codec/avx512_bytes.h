// Byte planes on AVX-512.
#pragma once
#include "codec/avx512_fetch.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Up to 64 symbols fit two registers: their starts, searched by halving, then freq, start and symbol by permute.
struct SymbolRanks {
  static constexpr unsigned kMost = 64;
  alignas(64) std::uint16_t start[kMost];
  alignas(64) std::uint16_t freq[kMost];
  alignas(64) std::uint16_t symbol[kMost];
  unsigned count;

  bool build(const ByteDecodeTable& table) {
    count = 0;
    for (unsigned s = 0; s < 256; ++s) {
      if (table.freq[s] == 0) continue;
      if (count == kMost) return false;
      start[count] = table.start[s];
      freq[count] = table.freq[s];
      symbol[count] = static_cast<std::uint16_t>(s);
      ++count;
    }
    for (unsigned r = count; r < kMost; ++r) {
      start[r] = 0xffff;  // above every slot
      freq[r] = 0;
      symbol[r] = 0;
    }
    return true;
  }
};

struct RankLookup {
  __m512i start[2];
  __m512i freq[2];
  __m512i symbol[2];

  explicit RankLookup(const SymbolRanks& ranks) {
    for (unsigned half = 0; half < 2; ++half) {
      start[half] = _mm512_load_si512(ranks.start + 32 * half);
      freq[half] = _mm512_load_si512(ranks.freq + 32 * half);
      symbol[half] = _mm512_load_si512(ranks.symbol + 32 * half);
    }
  }

  template <bool kWide>
  TEXTNLP_FAST_INLINE __m512i pick(const __m512i* table, __m512i rank) const {
    return kWide ? _mm512_permutex2var_epi16(table[0], rank, table[1]) : _mm512_permutexvar_epi16(rank, table[0]);
  }
};

// Symbols of one step, as 16-bit lanes.
template <bool kWide>
TEXTNLP_FAST_INLINE __m512i take_ranked(Lanes& lanes, Stream& stream, const RankLookup& lookup, __m512i slot_mask,
                                        const Shifts& shifts) {
  const __m512i slot = _mm512_and_si512(lanes.low, slot_mask);
  __m512i rank = _mm512_setzero_si512();
  if (kWide) {
    rank = _mm512_maskz_mov_epi16(_mm512_cmpge_epu16_mask(slot, lookup.pick<true>(lookup.start, _mm512_set1_epi16(32))),
                                  _mm512_set1_epi16(32));
  }
#pragma GCC unroll 5
  for (short step = 16; step != 0; step = static_cast<short>(step >> 1)) {
    const __m512i candidate = _mm512_or_si512(rank, _mm512_set1_epi16(step));
    rank = _mm512_mask_mov_epi16(rank, _mm512_cmpge_epu16_mask(slot, lookup.pick<kWide>(lookup.start, candidate)),
                                 candidate);
  }
  const __m512i offset = _mm512_sub_epi16(slot, lookup.pick<kWide>(lookup.start, rank));
  lanes = advance(lanes, lookup.pick<kWide>(lookup.freq, rank), offset, shifts);
  refill(lanes, stream);
  return lookup.pick<kWide>(lookup.symbol, rank);
}

struct SlotLookup {
  const std::uint32_t* slots;
};

struct Entries {
  __m512i freq;
  __m512i offset;
  __m512i symbol;
};

TEXTNLP_FAST_INLINE Entries entries_of(const Halves& found) {
  const __m512i lows = found.low;
  const __m512i highs = found.high;
  const __m512i twelve = _mm512_set1_epi16(0xfff);
  Entries entries;
  entries.freq = _mm512_sub_epi16(_mm512_and_si512(lows, twelve), _mm512_set1_epi16(-1));
  entries.offset = _mm512_and_si512(highs, twelve);
  // (highs >> 8 & 0xf0) | lows >> 12
  entries.symbol = _mm512_ternarylogic_epi64(_mm512_srli_epi16(highs, 8), _mm512_set1_epi16(0xf0),
                                             _mm512_srli_epi16(lows, 12), 0xea);
  return entries;
}

TEXTNLP_FAST_INLINE __m512i take_slots(const Halves& found, Lanes& lanes, Stream& stream, const Shifts& shifts) {
  const Entries entries = entries_of(found);
  lanes = advance(lanes, entries.freq, entries.offset, shifts);
  refill(lanes, stream);
  return entries.symbol;
}

// Runs `take(ahead, lanes, stream)` over the steps of up to four segments at a time, so that their latencies overlap,
// and hands the symbols to `emit(element, symbols)`; the last, short step of a segment goes through scalar code. What
// `look(ahead, lanes)` stores is read a round later, so that nobody waits for it.
template <class Ahead, unsigned kWays, class Look, class Take, class Emit, class EmitOne>
bool decode_ways(SegmentInput* segments, const ByteDecodeTable& table, const Look& look, const Take& take,
                 const Emit& emit, const EmitOne& emit_one) {
  Ahead ahead[kWays];
  Stream streams[kWays];
  Lanes lanes[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    streams[w].open(segments[w].words, segments[w].end);
    lanes[w] = load_lanes(segments[w].states);
    const std::size_t steps = segments[w].count / kLanes;
    shared = steps < shared ? steps : shared;
    look(ahead[w], lanes[w]);
  }
  for (std::size_t step = 0; step < shared; ++step) {
#pragma GCC unroll 4
    for (unsigned w = 0; w < kWays; ++w) {
      if (!streams[w].ready()) return false;
      emit(segments[w].begin + step * kLanes, take(ahead[w], lanes[w], streams[w]));
      look(ahead[w], lanes[w]);
    }
  }
  for (unsigned w = 0; w < kWays; ++w) {
    std::size_t step = shared;
    for (; step < segments[w].count / kLanes; ++step) {
      if (!streams[w].ready()) return false;
      emit(segments[w].begin + step * kLanes, take(ahead[w], lanes[w], streams[w]));
      look(ahead[w], lanes[w]);
    }
    store_lanes(segments[w].states, lanes[w]);
    if (streams[w].overrun()) return false;
    WordReader words{streams[w].at, streams[w].end, false};
    for (std::size_t i = step * kLanes; i < segments[w].count; ++i) {
      emit_one(segments[w].begin + i, scalar::byte_take(segments[w].states[i % kLanes], table, words));
    }
    if (!scalar::finished(segments[w].states, words)) return false;
  }
  return true;
}

template <class Ahead, class Look, class Take, class Emit, class EmitOne>
bool decode_segments(SegmentInput* segments, unsigned count, const ByteDecodeTable& table, const Look& look,
                     const Take& take, const Emit& emit, const EmitOne& emit_one) {
  unsigned at = 0;
  for (; count - at >= 4; at += 4) {
    if (!decode_ways<Ahead, 4>(segments + at, table, look, take, emit, emit_one)) return false;
  }
  for (; count - at >= 2; at += 2) {
    if (!decode_ways<Ahead, 2>(segments + at, table, look, take, emit, emit_one)) return false;
  }
  return at == count || decode_ways<Ahead, 1>(segments + at, table, look, take, emit, emit_one);
}

template <class Fetch, class Emit, class EmitOne>
bool decode_plane(SegmentInput* segments, unsigned count, const ByteDecodeTable& table, const Emit& emit,
                  const EmitOne& emit_one) {
  const Shifts shifts = make_shifts(table.table_log);
  const __m512i slot_mask = _mm512_set1_epi16(static_cast<short>((1u << table.table_log) - 1));
  SymbolRanks ranks;
  if (!ranks.build(table)) {
    using Ahead = typename Fetch::Ahead;
    auto look = [&](Ahead& ahead, const Lanes& lanes) {
      Fetch::ask(ahead, table.slots, _mm512_and_si512(lanes.low, slot_mask));
    };
    auto take = [&](const Ahead& ahead, Lanes& lanes, Stream& stream) {
      return take_slots(Fetch::halves(ahead, table.slots), lanes, stream, shifts);
    };
    return decode_segments<Ahead>(segments, count, table, look, take, emit, emit_one);
  }
  const RankLookup lookup(ranks);
  struct Nothing {};
  auto look = [](Nothing&, const Lanes&) {};
  if (ranks.count > 32) {
    auto take = [&](const Nothing&, Lanes& lanes, Stream& stream) {
      return take_ranked<true>(lanes, stream, lookup, slot_mask, shifts);
    };
    return decode_segments<Nothing>(segments, count, table, look, take, emit, emit_one);
  }
  auto take = [&](const Nothing&, Lanes& lanes, Stream& stream) {
    return take_ranked<false>(lanes, stream, lookup, slot_mask, shifts);
  };
  return decode_segments<Nothing>(segments, count, table, look, take, emit, emit_one);
}

template <class Fetch>
bool bytes_decode(SegmentInput* segments, unsigned count, const ByteDecodeTable* table, std::uint8_t* out) {
  return decode_plane<Fetch>(
      segments, count, *table,
      [&](std::size_t at, __m512i symbols) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), _mm512_cvtepi16_epi8(symbols));
      },
      [&](std::size_t at, unsigned symbol) { out[at] = static_cast<std::uint8_t>(symbol); });
}

TEXTNLP_FAST_INLINE __m512i join_bytes(__m512i upper, __m512i lower, bool rotate) {
  const __m512i joined = _mm512_or_si512(_mm512_slli_epi16(upper, 8), lower);
  return rotate ? _mm512_or_si512(_mm512_srli_epi16(joined, 1), _mm512_slli_epi16(joined, 15)) : joined;
}

TEXTNLP_FAST_INLINE __m512i load_bytes(const std::uint8_t* bytes) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
}

template <class Fetch>
bool bytes_decode_merge2(SegmentInput* segments, unsigned count, const ByteDecodeTable* table, bool rotate,
                         const std::uint8_t* lower, std::uint8_t* out) {
  auto one = [&](std::size_t at, unsigned symbol) {
    scalar::store<std::uint16_t>(out, at, scalar::join(symbol, lower[at], rotate));
  };
  auto step = [&](std::size_t at, __m512i symbols) {
    _mm512_storeu_si512(out + 2 * at, join_bytes(symbols, load_bytes(lower + at), rotate));
  };
  return decode_plane<Fetch>(segments, count, *table, step, one);
}

// A window of 64 symbols answers by permute.
struct SymbolWindow {
  static constexpr unsigned kSymbols = 64;
  unsigned first = 0;
  unsigned last = 255;
  __m512i freq[2];
  __m512i start[2];

  explicit SymbolWindow(const EncodeSymbol* symbols) {
    while (first < 255 && symbols[first].freq == 0) ++first;
    while (last > first && symbols[last].freq == 0) --last;
    alignas(64) std::uint16_t freqs[kSymbols] = {};
    alignas(64) std::uint16_t starts[kSymbols] = {};
    for (unsigned s = first; s <= last && s - first < kSymbols; ++s) {
      freqs[s - first] = symbols[s].freq;
      starts[s - first] = symbols[s].start;
    }
    for (unsigned half = 0; half < 2; ++half) {
      freq[half] = _mm512_load_si512(freqs + 32 * half);
      start[half] = _mm512_load_si512(starts + 32 * half);
    }
  }

  [[nodiscard]] bool holds_all() const { return last - first < kSymbols; }

  TEXTNLP_FAST_INLINE Shares find(__m512i byte) const {
    const __m512i index = _mm512_sub_epi16(byte, _mm512_set1_epi16(static_cast<short>(first)));
    return shares_of(_mm512_permutex2var_epi16(freq[0], index, freq[1]),
                     _mm512_permutex2var_epi16(start[0], index, start[1]));
  }
};

template <class Fetch>
void bytes_encode(const std::uint8_t* data, const EncodeSymbol* symbols, unsigned table_log, SegmentOutput* segments,
                  unsigned segment_count) {
  if (table_log < kMinVectorLog) {
    portable::bytes_encode(data, symbols, table_log, segments, segment_count);
    return;
  }
  const Writer writer(table_log);
  const SymbolWindow window(symbols);
  auto tail = [&](SegmentOutput& segment) {
    scalar::bytes_put(data + segment.begin, segment.count / kLanes * kLanes, segment.count, symbols, table_log,
                      segment.states, segment.words);
  };
  if (window.holds_all()) {
    auto look = [&](std::size_t at, Shares& shares)
                    TEXTNLP_FAST_INLINE_LAMBDA { shares = window.find(load_bytes(data + at)); };
    auto fetch = [](Shares&) {};
    auto put = [&](const Shares& shares, Lanes& lanes, std::uint16_t*& words)
                   TEXTNLP_FAST_INLINE_LAMBDA { writer.put_symbols<true>(lanes, shares, words); };
    encode_segments<Shares>(segments, segment_count, tail, look, fetch, put);
  } else {
    struct Prepared {
      typename Fetch::Ahead ahead;
      typename Fetch::Symbols symbols;
    };
    const auto* const entries = reinterpret_cast<const std::uint32_t*>(symbols);
    auto look = [&](std::size_t at, Prepared& prepared)
                    TEXTNLP_FAST_INLINE_LAMBDA { Fetch::ask(prepared.ahead, entries, load_bytes(data + at)); };
    auto fetch = [&](Prepared& prepared)
                     TEXTNLP_FAST_INLINE_LAMBDA { prepared.symbols = Fetch::symbols(prepared.ahead, entries); };
    auto put = [&](const Prepared& prepared, Lanes& lanes, std::uint16_t*& words)
                   TEXTNLP_FAST_INLINE_LAMBDA { writer.put_symbols<true>(lanes, prepared.symbols, words); };
    encode_segments<Prepared>(segments, segment_count, tail, look, fetch, put);
  }
}

void split_planes(unsigned element_size, bool rotate, const std::uint8_t* data, std::size_t count,
                  std::uint8_t* const* planes) {
  if (element_size != 2) {
    portable::split_planes(element_size, rotate, data, count, planes);
    return;
  }
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __m512i value = _mm512_loadu_si512(data + 2 * i);
    if (rotate) value = _mm512_or_si512(_mm512_slli_epi16(value, 1), _mm512_srli_epi16(value, 15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(planes[0] + i), _mm512_cvtepi16_epi8(_mm512_srli_epi16(value, 8)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(planes[1] + i), _mm512_cvtepi16_epi8(value));
  }
  std::uint8_t* const rest[2] = {planes[0] + i, planes[1] + i};
  portable::split_planes(2, rotate, data + 2 * i, count - i, rest);
}

void merge_planes(unsigned element_size, bool rotate, const std::uint8_t* const* planes, std::size_t count,
                  std::uint8_t* data) {
  if (element_size != 2) {
    portable::merge_planes(element_size, rotate, planes, count, data);
    return;
  }
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    _mm512_storeu_si512(data + 2 * i, join_bytes(load_bytes(planes[0] + i), load_bytes(planes[1] + i), rotate));
  }
  const std::uint8_t* const rest[2] = {planes[0] + i, planes[1] + i};
  portable::merge_planes(2, rotate, rest, count - i, data + 2 * i);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

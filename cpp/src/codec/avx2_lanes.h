// Thirty-two rANS lanes on AVX2. The reader keeps the upper and the lower halves of the states apart, 16 bits a lane:
// one compare finds the lanes to refill, and a byte shuffle out of a table feeds eight of them at a time. The writer
// keeps whole states and divides in floats. Only for files compiled for AVX2 (with BMI, BMI2, FMA, POPCNT).
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "codec/codec_scalar.h"
#include "codec/segment_stream.h"

// Steps must see their registers: out of line, every lane would go through memory.
#define TEXTNLP_FAST_INLINE inline __attribute__((always_inline))

namespace textnlp_fast {
namespace {
namespace avx2 {

// 16 bits a lane, in lane order.
struct Pair {
  __m256i a;
  __m256i b;
};

struct Lanes {
  Pair high;
  Pair low;
};

TEXTNLP_FAST_INLINE __m256i set16(unsigned value) { return _mm256_set1_epi16(static_cast<short>(value)); }
TEXTNLP_FAST_INLINE __m256i set32(unsigned value) { return _mm256_set1_epi32(static_cast<int>(value)); }
TEXTNLP_FAST_INLINE __m128i count_of(unsigned value) { return _mm_cvtsi32_si128(static_cast<int>(value)); }

TEXTNLP_FAST_INLINE __m256i load256(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
TEXTNLP_FAST_INLINE __m128i load128(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
TEXTNLP_FAST_INLINE void store256(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
TEXTNLP_FAST_INLINE void store128(void* to, __m128i value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }

TEXTNLP_FAST_INLINE __m256i join128(__m128i low, __m128i high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

TEXTNLP_FAST_INLINE Pair load_pair(const std::uint8_t* data, std::size_t element) {
  return {load256(data + 2 * element), load256(data + 2 * element + 32)};
}

TEXTNLP_FAST_INLINE void store_pair(std::uint8_t* data, std::size_t element, const Pair& value) {
  store256(data + 2 * element, value.a);
  store256(data + 2 * element + 32, value.b);
}

// --- masks -----------------------------------------------------------------------------------------------------------

// A bit a lane of a mask, the eights of lanes in the order 0, 2, 1, 3: that of a pack within 128 bits.
TEXTNLP_FAST_INLINE std::uint32_t bits_of(const Pair& mask) {
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(mask.a, mask.b)));
}

TEXTNLP_FAST_INLINE bool any(const Pair& mask) {
  const __m256i either = _mm256_or_si256(mask.a, mask.b);
  return _mm256_testz_si256(either, either) == 0;
}

TEXTNLP_FAST_INLINE std::uint32_t in_lane_order(std::uint32_t bits) {
  return (bits & 0xff0000ff) | (bits >> 8 & 0xff00) | (bits & 0xff00) << 8;
}

// Byte shuffles by a mask of eight lanes: `expand` hands packed words to the lanes of the mask, `compress` packs the
// words of those lanes against the upper end.
struct Shuffles {
  alignas(16) std::uint8_t expand[256][16];
  alignas(16) std::uint8_t compress[256][16];

  constexpr Shuffles() : expand{}, compress{} {
    for (unsigned mask = 0; mask < 256; ++mask) {
      unsigned taken = 0;
      for (unsigned lane = 0; lane < 8; ++lane) {
        const bool on = (mask >> lane & 1) != 0;
        expand[mask][2 * lane] = static_cast<std::uint8_t>(on ? 2 * taken : 0x80);
        expand[mask][2 * lane + 1] = static_cast<std::uint8_t>(on ? 2 * taken + 1 : 0x80);
        taken += on ? 1 : 0;
        compress[mask][2 * lane] = compress[mask][2 * lane + 1] = 0x80;
      }
      unsigned place = 8 - taken;
      for (unsigned lane = 0; lane < 8; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        compress[mask][2 * place] = static_cast<std::uint8_t>(2 * lane);
        compress[mask][2 * place + 1] = static_cast<std::uint8_t>(2 * lane + 1);
        ++place;
      }
    }
  }
};

constexpr Shuffles kShuffles;

// --- the reader ------------------------------------------------------------------------------------------------------

TEXTNLP_FAST_INLINE Lanes load_lanes(const std::uint32_t* states) {
  alignas(32) std::uint16_t high[kLanes];
  alignas(32) std::uint16_t low[kLanes];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    high[lane] = static_cast<std::uint16_t>(states[lane] >> 16);
    low[lane] = static_cast<std::uint16_t>(states[lane]);
  }
  return {{load256(high), load256(high + 16)}, {load256(low), load256(low + 16)}};
}

TEXTNLP_FAST_INLINE void store_lanes(std::uint32_t* states, const Lanes& lanes) {
  alignas(32) std::uint16_t high[kLanes];
  alignas(32) std::uint16_t low[kLanes];
  store256(high, lanes.high.a);
  store256(high + 16, lanes.high.b);
  store256(low, lanes.low.a);
  store256(low + 16, lanes.low.b);
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    states[lane] = static_cast<std::uint32_t>(high[lane]) << 16 | low[lane];
  }
}

// state = freq * (state >> log) + offset, in halves.
struct Shifts {
  __m128i log;
  __m128i up;  // 16 - log

  explicit Shifts(unsigned table_log) : log(count_of(table_log)), up(count_of(16 - table_log)) {}
};

TEXTNLP_FAST_INLINE void advance_half(__m256i& high, __m256i& low, __m256i freq, __m256i offset, const Shifts& shifts) {
  const __m256i quotient_low = _mm256_or_si256(_mm256_srl_epi16(low, shifts.log), _mm256_sll_epi16(high, shifts.up));
  const __m256i quotient_high = _mm256_srl_epi16(high, shifts.log);
  const __m256i product_low = _mm256_mullo_epi16(freq, quotient_low);
  const __m256i product_high =
      _mm256_add_epi16(_mm256_mulhi_epu16(freq, quotient_low), _mm256_mullo_epi16(freq, quotient_high));
  low = _mm256_add_epi16(product_low, offset);
  // One more, taken back where nothing was carried.
  const __m256i no_carry = _mm256_cmpeq_epi16(_mm256_max_epu16(low, offset), low);
  high = _mm256_add_epi16(_mm256_sub_epi16(product_high, set16(0xffff)), no_carry);
}

TEXTNLP_FAST_INLINE void advance(Lanes& lanes, const Pair& freq, const Pair& offset, const Shifts& shifts) {
  advance_half(lanes.high.a, lanes.low.a, freq.a, offset.a, shifts);
  advance_half(lanes.high.b, lanes.low.b, freq.b, offset.b, shifts);
}

TEXTNLP_FAST_INLINE void refill_half(__m256i& high, __m256i& low, __m256i need, __m256i words) {
  // The upper half of a lane in need is zero.
  high = _mm256_or_si256(high, _mm256_and_si256(need, low));
  low = _mm256_or_si256(_mm256_andnot_si256(need, low), words);
}

TEXTNLP_FAST_INLINE __m128i expand_shuffle(std::uint32_t mask) { return load128(kShuffles.expand[mask]); }

// Refills the lanes whose state fell below the floor.
TEXTNLP_FAST_INLINE void refill(Lanes& lanes, SegmentStream& stream) {
  const __m256i zero = _mm256_setzero_si256();
  const Pair need = {_mm256_cmpeq_epi16(lanes.high.a, zero), _mm256_cmpeq_epi16(lanes.high.b, zero)};
  const std::uint32_t bits = bits_of(need);
  const std::uint8_t* const from = stream.at;
  // Words before the second, third and fourth eight lanes; the eights lie as bits_of() says.
  const auto second = 2 * static_cast<std::size_t>(__builtin_popcount(bits & 0xff));
  const auto third = 2 * static_cast<std::size_t>(__builtin_popcount(bits & 0xff00ff));
  const auto fourth = 2 * static_cast<std::size_t>(__builtin_popcount(bits & 0xffffff));
  const __m256i words_a = join128(load128(from), load128(from + second));
  const __m256i words_b = join128(load128(from + third), load128(from + fourth));
  const __m256i to_a = join128(expand_shuffle(bits & 0xff), expand_shuffle(bits >> 16 & 0xff));
  const __m256i to_b = join128(expand_shuffle(bits >> 8 & 0xff), expand_shuffle(bits >> 24));
  refill_half(lanes.high.a, lanes.low.a, need.a, _mm256_shuffle_epi8(words_a, to_a));
  refill_half(lanes.high.b, lanes.low.b, need.b, _mm256_shuffle_epi8(words_b, to_b));
  stream.at = from + 2 * static_cast<std::size_t>(__builtin_popcount(bits));
}

TEXTNLP_FAST_INLINE bool any_below_floor(const Lanes& lanes) {
  const __m256i least = _mm256_min_epu16(lanes.high.a, lanes.high.b);
  return _mm256_movemask_epi8(_mm256_cmpeq_epi16(least, _mm256_setzero_si256())) != 0;
}

// Where a way's next entries lie.
struct Ahead {
  alignas(32) std::uint64_t numbers[8];

  TEXTNLP_FAST_INLINE void store(const Pair& index) {
    store256(numbers, index.a);
    store256(numbers + 4, index.b);
  }
};

// Runs `step(element, ahead, lanes, stream)` over the whole steps of kWays segments at once, so that their latencies
// overlap; `tail(segment, first, words)` decodes the elements from `first` on with scalar code. What
// `look(element, ahead, lanes)` stores is read a round later, so that nobody waits for it.
template <unsigned kWays, class Look, class Step, class Tail>
bool decode_ways(SegmentInput* segments, const Look& look, const Step& step, const Tail& tail) {
  Ahead ahead[kWays];
  SegmentStream streams[kWays];
  Lanes lanes[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    streams[w].open(segments[w].words, segments[w].end);
    lanes[w] = load_lanes(segments[w].states);
    const std::size_t steps = segments[w].count / kLanes;
    shared = steps < shared ? steps : shared;
  }
  for (unsigned w = 0; w < kWays && shared != 0; ++w) look(segments[w].begin, ahead[w], lanes[w]);
  for (std::size_t at = 0; at < shared; ++at) {
    const std::size_t next = at + 1 < shared ? at + 1 : at;
#pragma GCC unroll 4
    for (unsigned w = 0; w < kWays; ++w) {
      if (!streams[w].ready()) return false;
      step(segments[w].begin + at * kLanes, ahead[w], lanes[w], streams[w]);
      look(segments[w].begin + next * kLanes, ahead[w], lanes[w]);
    }
  }
  for (unsigned w = 0; w < kWays; ++w) {
    SegmentInput& segment = segments[w];
    std::size_t at = shared;
    for (; at < segment.count / kLanes; ++at) {
      if (!streams[w].ready()) return false;
      look(segment.begin + at * kLanes, ahead[w], lanes[w]);
      step(segment.begin + at * kLanes, ahead[w], lanes[w], streams[w]);
    }
    store_lanes(segment.states, lanes[w]);
    if (streams[w].overrun()) return false;
    WordReader words{streams[w].at, streams[w].end, false};
    tail(segment, at * kLanes, words);
    if (!scalar::finished(segment.states, words)) return false;
  }
  return true;
}

template <class Look, class Step, class Tail>
bool decode_segments(SegmentInput* segments, unsigned count, const Look& look, const Step& step, const Tail& tail) {
  unsigned at = 0;
  for (; count - at >= 4; at += 4) {
    if (!decode_ways<4>(segments + at, look, step, tail)) return false;
  }
  for (; count - at >= 2; at += 2) {
    if (!decode_ways<2>(segments + at, look, step, tail)) return false;
  }
  return at == count || decode_ways<1>(segments + at, look, step, tail);
}

// --- 32 bits a lane --------------------------------------------------------------------------------------------------

// Lanes 0 to 15 in `a`, the rest in `b`; even lanes and odd lanes apart.
struct Wide {
  __m256i even_a;
  __m256i odd_a;
  __m256i even_b;
  __m256i odd_b;
};

TEXTNLP_FAST_INLINE Wide widen(const Pair& words) {
  const __m256i lower = set32(0xffff);
  return {_mm256_and_si256(words.a, lower), _mm256_srli_epi32(words.a, 16), _mm256_and_si256(words.b, lower),
          _mm256_srli_epi32(words.b, 16)};
}

TEXTNLP_FAST_INLINE __m256i upper_of(__m256i even, __m256i odd) {
  return _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
}

TEXTNLP_FAST_INLINE __m256i lower_of(__m256i even, __m256i odd) {
  return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
}

TEXTNLP_FAST_INLINE Pair upper_halves(const Wide& wide) {
  return {upper_of(wide.even_a, wide.odd_a), upper_of(wide.even_b, wide.odd_b)};
}

TEXTNLP_FAST_INLINE Pair lower_halves(const Wide& wide) {
  return {lower_of(wide.even_a, wide.odd_a), lower_of(wide.even_b, wide.odd_b)};
}

// Masks of 32 bits to masks of 16.
TEXTNLP_FAST_INLINE Pair narrow_mask(const Wide& mask) {
  return {_mm256_blend_epi16(mask.even_a, mask.odd_a, 0xaa), _mm256_blend_epi16(mask.even_b, mask.odd_b, 0xaa)};
}

TEXTNLP_FAST_INLINE int entry_at(const void* table, std::uint64_t index) {
  int entry;
  __builtin_memcpy(&entry, static_cast<const char*>(table) + index * sizeof entry, sizeof entry);
  return entry;
}

// Entries by the 16-bit numbers that lie at bits `shift` and `shift` + 32 of each index.
TEXTNLP_FAST_INLINE __m256i gather_every_other(const void* table, const std::uint64_t* index, unsigned shift) {
  const auto at = [&](unsigned word, unsigned more) __attribute__((always_inline)) {
    return entry_at(table, index[word] >> (shift + more) & 0xffff);
  };
  return join128(_mm_setr_epi32(at(0, 0), at(0, 32), at(1, 0), at(1, 32)),
                 _mm_setr_epi32(at(2, 0), at(2, 32), at(3, 0), at(3, 32)));
}

// Thirty-two entries of 32 bits by 16-bit index. With single loads: the gather instruction is microcode on some
// processors, and slower.
TEXTNLP_FAST_INLINE Wide fetch(const void* table, const Ahead& ahead) {
  const std::uint64_t* const numbers = ahead.numbers;
  return {gather_every_other(table, numbers, 0), gather_every_other(table, numbers, 16),
          gather_every_other(table, numbers + 4, 0), gather_every_other(table, numbers + 4, 16)};
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast

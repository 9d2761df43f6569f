// The rANS writer on AVX2: thirty-two whole states, coded backwards.
#pragma once
#include "codec/avx2_lanes.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

TEXTNLP_FAST_INLINE Wide load_wide(const std::uint32_t* states) {
  const Lanes lanes = load_lanes(states);
  const Wide high = widen(lanes.high);
  const Wide low = widen(lanes.low);
  return {_mm256_or_si256(_mm256_slli_epi32(high.even_a, 16), low.even_a),
          _mm256_or_si256(_mm256_slli_epi32(high.odd_a, 16), low.odd_a),
          _mm256_or_si256(_mm256_slli_epi32(high.even_b, 16), low.even_b),
          _mm256_or_si256(_mm256_slli_epi32(high.odd_b, 16), low.odd_b)};
}

TEXTNLP_FAST_INLINE void store_wide(std::uint32_t* states, const Wide& wide) {
  store_lanes(states, {upper_halves(wide), lower_halves(wide)});
}

// The words of a segment, written downwards. Vector stores reach below the last word: from `room` on there is space.
struct WordSink {
  std::uint16_t* at;
  std::uint16_t* room;
};

// Emits the lower halves of the lanes in `bits` (as bits_of() has them) below the sink's cursor, in lane order.
TEXTNLP_FAST_INLINE void put_words(const Pair& low, std::uint32_t bits, WordSink& sink) {
  if (__builtin_expect(sink.at - sink.room < 40, 0)) {
    alignas(32) std::uint16_t words[kLanes];
    store256(words, low.a);
    store256(words + 16, low.b);
    const std::uint32_t lanes = in_lane_order(bits);
    for (unsigned lane = kLanes; lane-- > 0;) {
      if ((lanes >> lane & 1) != 0) *--sink.at = words[lane];
    }
    return;
  }
  const std::uint32_t eights[4] = {bits & 0xff, bits >> 16 & 0xff, bits >> 8 & 0xff, bits >> 24};
  const __m256i packed_a = _mm256_shuffle_epi8(
      low.a, join128(load128(kShuffles.compress[eights[0]]), load128(kShuffles.compress[eights[1]])));
  const __m256i packed_b = _mm256_shuffle_epi8(
      low.b, join128(load128(kShuffles.compress[eights[2]]), load128(kShuffles.compress[eights[3]])));
  std::uint16_t* const end = sink.at;
  store128(end - 8, _mm256_extracti128_si256(packed_b, 1));
  store128(end - __builtin_popcount(bits & 0xff000000) - 8, _mm256_castsi256_si128(packed_b));
  store128(end - __builtin_popcount(bits & 0xff00ff00) - 8, _mm256_extracti128_si256(packed_a, 1));
  store128(end - __builtin_popcount(bits & 0xffffff00) - 8, _mm256_castsi256_si128(packed_a));
  sink.at = end - __builtin_popcount(bits);
}

TEXTNLP_FAST_INLINE __m256i shift_out(__m256i state, __m256i need) {
  return _mm256_blendv_epi8(state, _mm256_srli_epi32(state, 16), need);
}

// Emits a word of each lane in `need`. No branch on whether there are any: it would be guessed wrong too often.
TEXTNLP_FAST_INLINE void spill(Wide& lanes, const Wide& need, WordSink& sink) {
  const std::uint32_t bits = bits_of(narrow_mask(need));
  put_words(lower_halves(lanes), bits, sink);
  lanes = {shift_out(lanes.even_a, need.even_a), shift_out(lanes.odd_a, need.odd_a),
           shift_out(lanes.even_b, need.even_b), shift_out(lanes.odd_b, need.odd_b)};
}

// x -> (x / freq << log) + start + x % freq. The float quotient is off by less than a half (below 2^22, with two
// roundings of 2^-24): less a half, truncated, it is right or one short.
TEXTNLP_FAST_INLINE __m256i put(__m256i state, __m256i freq, __m256i start, __m128i log, __m256i scale) {
  const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(state, 16));
  const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(state, set32(0xffff)));
  const __m256 ratio = _mm256_div_ps(_mm256_fmadd_ps(high, _mm256_set1_ps(65536.0F), low), _mm256_cvtepi32_ps(freq));
  const __m256i quotient = _mm256_cvttps_epi32(_mm256_sub_ps(ratio, _mm256_set1_ps(0.5F)));
  const __m256i rest = _mm256_sub_epi32(state, _mm256_mullo_epi32(quotient, freq));
  const __m256i coded = _mm256_add_epi32(_mm256_add_epi32(_mm256_sll_epi32(quotient, log), start), rest);
  const __m256i exact = _mm256_cmpgt_epi32(freq, rest);
  return _mm256_add_epi32(coded, _mm256_andnot_si256(exact, _mm256_sub_epi32(scale, freq)));
}

// Below this the quotient does not fit a float's mantissa.
constexpr unsigned kMinVectorLog = 10;

// What coding under tables of one precision needs.
struct Writer {
  __m128i down;  // 32 - log
  __m128i log;
  __m256i scale;

  explicit Writer(unsigned table_log)
      : down(count_of(32 - table_log)), log(count_of(table_log)), scale(set32(1u << table_log)) {}

  TEXTNLP_FAST_INLINE __m256i full(__m256i state, __m256i freq) const {
    return _mm256_cmpgt_epi32(_mm256_srl_epi32(state, down), _mm256_sub_epi32(freq, set32(1)));
  }

  // One symbol a lane.
  TEXTNLP_FAST_INLINE void put_symbols(Wide& lanes, const Wide& freq, const Wide& start, WordSink& sink) const {
    spill(lanes,
          {full(lanes.even_a, freq.even_a), full(lanes.odd_a, freq.odd_a), full(lanes.even_b, freq.even_b),
           full(lanes.odd_b, freq.odd_b)},
          sink);
    lanes = {put(lanes.even_a, freq.even_a, start.even_a, log, scale),
             put(lanes.odd_a, freq.odd_a, start.odd_a, log, scale),
             put(lanes.even_b, freq.even_b, start.even_b, log, scale),
             put(lanes.odd_b, freq.odd_b, start.odd_b, log, scale)};
  }

  // Symbols as the encoder's tables have them.
  TEXTNLP_FAST_INLINE void put_symbols(Wide& lanes, const Wide& symbols, WordSink& sink) const {
    const __m256i lower = set32(0xffff);
    put_symbols(lanes,
                {_mm256_and_si256(symbols.even_a, lower), _mm256_and_si256(symbols.odd_a, lower),
                 _mm256_and_si256(symbols.even_b, lower), _mm256_and_si256(symbols.odd_b, lower)},
                {_mm256_srli_epi32(symbols.even_a, 16), _mm256_srli_epi32(symbols.odd_a, 16),
                 _mm256_srli_epi32(symbols.even_b, 16), _mm256_srli_epi32(symbols.odd_b, 16)},
                sink);
  }
};

// Codes the whole steps of kWays segments at once, backwards: `look(element, prepared)` works out what does not depend
// on the states and stores where shares lie, a few steps ahead, so that nobody waits for the store; `put(prepared,
// lanes, sink)` takes them into the states, a step of every segment in turn, so that their latencies overlap.
// `tail(segment)` codes the elements past the last whole step first, with scalar code.
template <class Prepared, unsigned kWays, class Tail, class Look, class Put>
void encode_ways(SegmentOutput* segments, const Tail& tail, const Look& look, const Put& put) {
  constexpr std::size_t kAhead = 4;
  Prepared prepared[kWays][kAhead];
  Wide lanes[kWays];
  WordSink sinks[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    SegmentOutput& segment = segments[w];
    // At least a word an element was set aside.
    std::uint16_t* const room = segment.words - segment.count;
    scalar::reset(segment.states);
    tail(segment);
    lanes[w] = load_wide(segment.states);
    sinks[w] = {segment.words, room};
    const std::size_t steps = segment.count / kLanes;
    shared = steps < shared ? steps : shared;
  }
  for (unsigned w = 0; w < kWays; ++w) {
    for (std::size_t at = segments[w].count / kLanes; at-- > shared;) {
      look(segments[w].begin + at * kLanes, prepared[w][0]);
      put(prepared[w][0], lanes[w], sinks[w]);
    }
  }
  for (std::size_t left = shared; left != 0;) {
    const std::size_t steps = left < kAhead ? left : kAhead;
    for (unsigned w = 0; w < kWays; ++w) {
      for (std::size_t i = 0; i < steps; ++i) look(segments[w].begin + (left - 1 - i) * kLanes, prepared[w][i]);
    }
    for (std::size_t i = 0; i < steps; ++i) {
#pragma GCC unroll 4
      for (unsigned w = 0; w < kWays; ++w) put(prepared[w][i], lanes[w], sinks[w]);
    }
    left -= steps;
  }
  for (unsigned w = 0; w < kWays; ++w) {
    store_wide(segments[w].states, lanes[w]);
    segments[w].words = sinks[w].at;
  }
}

template <class Prepared, class Tail, class Look, class Put>
void encode_segments(SegmentOutput* segments, unsigned count, const Tail& tail, const Look& look, const Put& put) {
  unsigned at = 0;
  for (; count - at >= 4; at += 4) encode_ways<Prepared, 4>(segments + at, tail, look, put);
  for (; count - at >= 2; at += 2) encode_ways<Prepared, 2>(segments + at, tail, look, put);
  for (; at < count; ++at) encode_ways<Prepared, 1>(segments + at, tail, look, put);
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast

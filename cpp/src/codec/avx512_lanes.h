// Thirty-two rANS lanes in two registers: the upper and the lower halves of the states, 16 bits a lane, in lane order.
// One compare finds the lanes to refill, one expand feeds them in order, and every look-up is a 16-bit permute. Only
// for files compiled for AVX-512 (F, BW, VL, DQ, CD, VBMI, VBMI2).
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codec/codec_scalar.h"

// Steps must see their registers: out of line, every lane would go through memory.
#define TEXTNLP_FAST_INLINE inline __attribute__((always_inline))
#define TEXTNLP_FAST_INLINE_LAMBDA __attribute__((always_inline))

namespace textnlp_fast {
namespace {
namespace avx512 {

struct Lanes {
  __m512i high;
  __m512i low;
};

TEXTNLP_FAST_INLINE Lanes load_lanes(const std::uint32_t* states) {
  const __m512i a = _mm512_loadu_si512(states);
  const __m512i b = _mm512_loadu_si512(states + 16);
  const __m256i low_a = _mm512_cvtepi32_epi16(a);
  const __m256i low_b = _mm512_cvtepi32_epi16(b);
  const __m256i high_a = _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16));
  const __m256i high_b = _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16));
  return {_mm512_inserti64x4(_mm512_castsi256_si512(high_a), high_b, 1),
          _mm512_inserti64x4(_mm512_castsi256_si512(low_a), low_b, 1)};
}

TEXTNLP_FAST_INLINE void store_lanes(std::uint32_t* states, const Lanes& lanes) {
  std::uint16_t high[kLanes];
  std::uint16_t low[kLanes];
  _mm512_storeu_si512(high, lanes.high);
  _mm512_storeu_si512(low, lanes.low);
  for (unsigned lane = 0; lane < kLanes; ++lane)
    states[lane] = static_cast<std::uint32_t>(high[lane]) << 16 | low[lane];
}

// state = freq * (state >> log) + offset, in halves. up = 16 - log.
struct Shifts {
  __m512i up;   // 16 - log, in every lane
  __m128i log;  // log, as a count
};

TEXTNLP_FAST_INLINE Shifts make_shifts(unsigned log) {
  return {_mm512_set1_epi16(static_cast<short>(16 - log)), _mm_cvtsi32_si128(static_cast<int>(log))};
}

TEXTNLP_FAST_INLINE Lanes advance(const Lanes& lanes, __m512i freq, __m512i offset, const Shifts& shifts) {
  const __m512i quotient_low = _mm512_shldv_epi16(lanes.high, lanes.low, shifts.up);
  const __m512i quotient_high = _mm512_srl_epi16(lanes.high, shifts.log);
  const __m512i product_low = _mm512_mullo_epi16(freq, quotient_low);
  const __m512i product_high =
      _mm512_add_epi16(_mm512_mulhi_epu16(freq, quotient_low), _mm512_mullo_epi16(freq, quotient_high));
  const __m512i low = _mm512_add_epi16(product_low, offset);
  const __mmask32 carry = _mm512_cmplt_epu16_mask(low, offset);
  return {_mm512_mask_sub_epi16(product_high, carry, product_high, _mm512_set1_epi16(-1)), low};
}

// The words of a segment. Up to kAhead bytes past `at` may be read at any time: near the end the rest moves to a padded
// copy, where running past the end is seen and harmless.
struct Stream {
  static constexpr std::ptrdiff_t kAhead = 256;
  const std::uint8_t* at;
  const std::uint8_t* safe;  // while at <= safe, kAhead bytes can be read
  const std::uint8_t* end;
  bool in_tail;
  alignas(64) std::uint8_t tail[2 * kAhead];

  void open(const std::uint8_t* begin, const std::uint8_t* finish) {
    at = begin;
    end = finish;
    in_tail = false;
    safe = finish - begin >= kAhead ? finish - kAhead : begin - 1;
  }

  // To be called before a step that takes at most 128 bytes; false once the stream has run over.
  TEXTNLP_FAST_INLINE bool ready() {
    if (__builtin_expect(at <= safe, 1)) return true;
    return settle();
  }

  __attribute__((noinline)) bool settle() {
    if (in_tail) return false;
    const std::size_t left = static_cast<std::size_t>(end - at);
    std::memset(tail, 0, sizeof tail);
    std::memcpy(tail, at, left);
    at = tail;
    end = tail + left;
    safe = end;
    in_tail = true;
    return true;
  }

  [[nodiscard]] bool overrun() const { return at > end; }
};

// A load that stays one: expanding from a register is quick, from memory it is not, and compilers join the two.
TEXTNLP_FAST_INLINE __m512i load_apart(const void* from) {
  __m512i loaded = _mm512_loadu_si512(from);
  asm("" : "+v"(loaded));
  return loaded;
}

// Refills the lanes whose state fell below the floor.
TEXTNLP_FAST_INLINE void refill(Lanes& lanes, Stream& stream) {
  const __mmask32 need = _mm512_testn_epi16_mask(lanes.high, lanes.high);
  const __m512i words = load_apart(stream.at);
  lanes.high = _mm512_mask_mov_epi16(lanes.high, need, lanes.low);
  lanes.low = _mm512_mask_expand_epi16(lanes.low, need, words);
  stream.at += 2 * static_cast<unsigned>(__builtin_popcount(need));
}

// --- the writer divides: states are 32-bit numbers for that, even lanes in one register, odd lanes in the other ------

struct WideLanes {
  __m512i even;
  __m512i odd;
};

constexpr __mmask32 kOddWords = 0xaaaaaaaa;

TEXTNLP_FAST_INLINE WideLanes widen(__m512i words) {
  return {_mm512_and_si512(words, _mm512_set1_epi32(0xffff)), _mm512_srli_epi32(words, 16)};
}

TEXTNLP_FAST_INLINE __m512i upper_halves(const WideLanes& lanes) {
  return _mm512_mask_blend_epi16(kOddWords, _mm512_srli_epi32(lanes.even, 16), lanes.odd);
}

TEXTNLP_FAST_INLINE __m512i lower_halves(const WideLanes& lanes) {
  return _mm512_mask_blend_epi16(kOddWords, lanes.even, _mm512_slli_epi32(lanes.odd, 16));
}

TEXTNLP_FAST_INLINE WideLanes join_halves(__m512i high, __m512i low) {
  return {_mm512_mask_blend_epi16(kOddWords, low, _mm512_slli_epi32(high, 16)),
          _mm512_mask_blend_epi16(kOddWords, _mm512_srli_epi32(low, 16), high)};
}

// Emits the words of the lanes in `need` below *words, in lane order.
TEXTNLP_FAST_INLINE void spill(Lanes& lanes, __mmask32 need, std::uint16_t*& words) {
  const auto count = static_cast<unsigned>(__builtin_popcount(need));
  words -= count;
  const __mmask32 kept = _bzhi_u32(0xffffffffu, count);
  _mm512_mask_storeu_epi16(words, kept, _mm512_maskz_compress_epi16(need, lanes.low));
  lanes.low = _mm512_mask_mov_epi16(lanes.low, need, lanes.high);
  lanes.high = _mm512_maskz_mov_epi16(_knot_mask32(need), lanes.high);
}

// Rounded down, so that a quotient is never too large.
constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;

// x -> (x / freq << log) + start + x % freq for 16 lanes. The reciprocal does not wait for the state. The quotient is
// below 2^(32 - log), and what rounds down, by at most (3 + 2^-4) * 2^-23, leaves it short by less than
// (3 + 2^-4) * 2^(9 - log): by one at most from log 11 on, by two at log 10 (kCoarse).

// An estimate r = (1 - e) / freq, with e at most 2^-14 whatever the processor, and a step of Newton's: r + r * e is
// (1 - e * e) / freq, which is never too large. Of the error 2^-28 is e * e. A division would take three times as long.
TEXTNLP_FAST_INLINE __m512 reciprocal_of(__m512i freq) {
  constexpr int kFloor = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 divisor = _mm512_cvtepi32_ps(freq);
  const __m512 estimate = _mm512_rcp14_ps(divisor);
  const __m512 error = _mm512_fnmadd_round_ps(divisor, estimate, _mm512_set1_ps(1.0F), kFloor);
  return _mm512_fmadd_round_ps(estimate, error, estimate, kFloor);
}

template <bool kCoarse>
TEXTNLP_FAST_INLINE __m512i put(__m512i state, __m512i freq, __m512 reciprocal, __m512i start, __m128i log,
                                __m512i scale) {
  const __m512 ratio = _mm512_mul_round_ps(_mm512_cvt_roundepu32_ps(state, kDown), reciprocal, kDown);
  const __m512i quotient = _mm512_cvttps_epi32(ratio);
  const __m512i rest = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, freq));
  const __m512i coded = _mm512_add_epi32(_mm512_add_epi32(_mm512_sll_epi32(quotient, log), start), rest);
  const __m512i correction = _mm512_sub_epi32(scale, freq);
  const __mmask16 short_by_one = _mm512_cmpge_epu32_mask(rest, freq);
  const __m512i once = _mm512_mask_add_epi32(coded, short_by_one, coded, correction);
  if (!kCoarse) return once;
  const __mmask16 short_by_two = _mm512_cmpge_epu32_mask(rest, _mm512_add_epi32(freq, freq));
  return _mm512_mask_add_epi32(once, short_by_two, once, correction);
}

constexpr unsigned kMinVectorLog = 10;

// A step's symbols: freq and start in 16-bit lanes.
struct Shares {
  __m512i freq;
  __m512i start;
  __m512 even_reciprocal;
  __m512 odd_reciprocal;
};

TEXTNLP_FAST_INLINE Shares shares_of(__m512i freq, __m512i start) {
  const WideLanes freqs = widen(freq);
  return {freq, start, reciprocal_of(freqs.even), reciprocal_of(freqs.odd)};
}

// The same in the lanes of states.
struct WideShares {
  WideLanes freqs;
  WideLanes starts;
  __m512 even_reciprocal;
  __m512 odd_reciprocal;
};

// From freq below and start above.
TEXTNLP_FAST_INLINE WideShares wide_shares_of(__m512i even, __m512i odd) {
  const __m512i low = _mm512_set1_epi32(0xffff);
  const WideLanes freqs = {_mm512_and_si512(even, low), _mm512_and_si512(odd, low)};
  return {freqs,
          {_mm512_srli_epi32(even, 16), _mm512_srli_epi32(odd, 16)},
          reciprocal_of(freqs.even),
          reciprocal_of(freqs.odd)};
}

// What coding under tables of one precision needs.
struct Writer {
  __m128i down;  // 16 - log
  __m128i log;
  __m512i scale;

  explicit Writer(unsigned table_log)
      : down(_mm_cvtsi32_si128(static_cast<int>(16 - table_log))),
        log(_mm_cvtsi32_si128(static_cast<int>(table_log))),
        scale(_mm512_set1_epi32(1 << table_log)) {}

  // One symbol a lane. kCoarse where the tables' log may be 10.
  template <bool kCoarse>
  TEXTNLP_FAST_INLINE void put_symbols(Lanes& lanes, const Shares& shares, std::uint16_t*& words) const {
    make_room(lanes, shares.freq, words);
    put_wide<kCoarse>(lanes, {widen(shares.freq), widen(shares.start), shares.even_reciprocal, shares.odd_reciprocal});
  }

  template <bool kCoarse>
  TEXTNLP_FAST_INLINE void put_symbols(Lanes& lanes, const WideShares& shares, std::uint16_t*& words) const {
    make_room(lanes, lower_halves(shares.freqs), words);
    put_wide<kCoarse>(lanes, shares);
  }

 private:
  // For symbols of the shares `freq`, in 16-bit lanes.
  TEXTNLP_FAST_INLINE void make_room(Lanes& lanes, __m512i freq, std::uint16_t*& words) const {
    const __mmask32 need = _mm512_cmpge_epu16_mask(_mm512_srl_epi16(lanes.high, down), freq);
    if (need != 0) spill(lanes, need, words);
  }

  template <bool kCoarse>
  TEXTNLP_FAST_INLINE void put_wide(Lanes& lanes, const WideShares& shares) const {
    WideLanes wide = join_halves(lanes.high, lanes.low);
    wide.even = put<kCoarse>(wide.even, shares.freqs.even, shares.even_reciprocal, shares.starts.even, log, scale);
    wide.odd = put<kCoarse>(wide.odd, shares.freqs.odd, shares.odd_reciprocal, shares.starts.odd, log, scale);
    lanes = {upper_halves(wide), lower_halves(wide)};
  }
};

// Codes the whole steps of up to four segments at once, backwards. What does not depend on the states is worked out a
// few steps ahead: `look(element, prepared)` stores where shares lie, and `fetch(prepared)`, later, so that it need not
// wait for the store, gets them. `put(prepared, lanes, words)` takes them into the states, a step of every segment in
// turn, so that their latencies overlap. `tail(segment)` codes the elements past the last whole step first, with scalar
// code.
template <class Prepared, unsigned kWays, class Tail, class Look, class Fetch, class Put>
void encode_ways(SegmentOutput* segments, const Tail& tail, const Look& look, const Fetch& fetch, const Put& put) {
  constexpr std::size_t kAhead = 4;
  Prepared prepared[kWays][kAhead];
  Lanes lanes[kWays];
  std::uint16_t* words[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    SegmentOutput& segment = segments[w];
    scalar::reset(segment.states);
    tail(segment);
    lanes[w] = load_lanes(segment.states);
    words[w] = segment.words;
    const std::size_t steps = segment.count / kLanes;
    shared = steps < shared ? steps : shared;
  }
  for (unsigned w = 0; w < kWays; ++w) {
    for (std::size_t at = segments[w].count / kLanes; at-- > shared;) {
      look(segments[w].begin + at * kLanes, prepared[w][0]);
      fetch(prepared[w][0]);
      put(prepared[w][0], lanes[w], words[w]);
    }
  }
  for (std::size_t left = shared; left != 0;) {
    const std::size_t steps = left < kAhead ? left : kAhead;
    for (unsigned w = 0; w < kWays; ++w) {
      for (std::size_t i = 0; i < steps; ++i) look(segments[w].begin + (left - 1 - i) * kLanes, prepared[w][i]);
    }
    for (unsigned w = 0; w < kWays; ++w) {
      for (std::size_t i = 0; i < steps; ++i) fetch(prepared[w][i]);
    }
    for (std::size_t i = 0; i < steps; ++i) {
#pragma GCC unroll 4
      for (unsigned w = 0; w < kWays; ++w) put(prepared[w][i], lanes[w], words[w]);
    }
    left -= steps;
  }
  for (unsigned w = 0; w < kWays; ++w) {
    store_lanes(segments[w].states, lanes[w]);
    segments[w].words = words[w];
  }
}

template <class Prepared, class Tail, class Look, class Fetch, class Put>
void encode_segments(SegmentOutput* segments, unsigned count, const Tail& tail, const Look& look, const Fetch& fetch,
                     const Put& put) {
  unsigned at = 0;
  for (; count - at >= 4; at += 4) encode_ways<Prepared, 4>(segments + at, tail, look, fetch, put);
  for (; count - at >= 2; at += 2) encode_ways<Prepared, 2>(segments + at, tail, look, fetch, put);
  for (; at < count; ++at) encode_ways<Prepared, 1>(segments + at, tail, look, fetch, put);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

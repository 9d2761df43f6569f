// The Gear hash of eighteen stretches at once: sixteen in vectors, without a gather, and two in general registers,
// which find room in the issue slots that the vectors leave.
//
// h is a sum over the last 64 bytes, h = sum_j T[b_j] << j. The bytes of -T are eight planes of digits, and a byte
// looks a plane up in two byte permutes of 128 entries. Eight bytes in a row then add to plane k
//     -sum_i digit_k[b_i] * 2^(7-i):
// two dot products (VNNI) with negative weights; digits without a sign are of use below. With D_k(g) for the sum of all
// contributions of weight 2^(8k) after group g of eight bytes,
//     D_k(g) = D_(k-1)(g-1) + that sum,    h = sum_k D_k << 8k mod 2^64:
// moving on by eight bytes renames the planes, nothing is shifted and no carry is propagated. The top of h follows
// every eight bytes, and four bytes later from the planes 5-7. Between, the top 16 bits run on in plain 16-bit
// arithmetic, both halves of the group side by side, with an error that doubles a byte and is bounded: a byte within it
// is a suspect. gcc 12's own headers leave "undefined" vectors undefined, and warn of it at every use.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "chunk/chunk_kernels.h"
#include "chunk/gear_lanes.h"
#include "chunk/gear_table.h"

#if defined(__GNUC__) && !defined(__AVX512VNNI__)
#error "built without -mavx512vnni"
#endif

namespace textnlp_fast {
namespace {

constexpr unsigned kVectorLanes = 16;
constexpr unsigned kFastLane = kVectorLanes;

struct alignas(64) Planes {
  std::uint8_t digit[8][256];
};

constexpr Planes make_planes() {
  Planes planes{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    for (unsigned plane = 0; plane < 8; ++plane) {
      planes.digit[plane][byte] = static_cast<std::uint8_t>((0 - kGear[byte]) >> (8 * plane));
    }
  }
  return planes;
}

constexpr Planes kPlanes = make_planes();

// Of two vectors of 16-byte pieces: from each 8 bytes the words 0 and 2, then 1 and 3, of either vector in turn.
struct alignas(64) PairOrder {
  std::uint16_t lower[32];
  std::uint16_t upper[32];
};

constexpr PairOrder make_pair_order() {
  PairOrder order{};
  for (unsigned at = 0; at < 32; ++at) {
    const unsigned piece = at & ~7U;
    const unsigned from_second = at >> 1 & 1;
    const unsigned word = (at >> 2 & 1) + 2 * (at & 1);
    order.lower[at] = static_cast<std::uint16_t>(32 * from_second + piece + word);
    order.upper[at] = static_cast<std::uint16_t>(order.lower[at] + 4);
  }
  return order;
}

constexpr PairOrder kPairOrder = make_pair_order();

// Sixteen bytes of each lane, one dword a lane: rows[0] its bytes 0, 1, 4, 5, rows[1] the bytes 2, 3, 6, 7; rows[2] and
// rows[3] the same of the next eight.
[[gnu::always_inline]] inline void load_rows(const std::uint8_t* const* at, std::size_t offset, __m512i* rows) {
  const __m512i lower = _mm512_load_si512(kPairOrder.lower);
  const __m512i upper = _mm512_load_si512(kPairOrder.upper);
  const auto piece = [ at, offset ](unsigned lane) __attribute__((always_inline)) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at[lane] + offset));
  };
  __m512i pieces[4];
#pragma GCC unroll 4
  for (unsigned i = 0; i < 4; ++i) {
    pieces[i] = _mm512_castsi128_si512(piece(i));
    pieces[i] = _mm512_inserti32x4(pieces[i], piece(4 + i), 1);
    pieces[i] = _mm512_inserti32x4(pieces[i], piece(8 + i), 2);
    pieces[i] = _mm512_inserti32x4(pieces[i], piece(12 + i), 3);
  }
  const __m512i lower01 = _mm512_permutex2var_epi16(pieces[0], lower, pieces[1]);
  const __m512i lower23 = _mm512_permutex2var_epi16(pieces[2], lower, pieces[3]);
  const __m512i upper01 = _mm512_permutex2var_epi16(pieces[0], upper, pieces[1]);
  const __m512i upper23 = _mm512_permutex2var_epi16(pieces[2], upper, pieces[3]);
  rows[0] = _mm512_unpacklo_epi64(lower01, lower23);
  rows[1] = _mm512_unpackhi_epi64(lower01, lower23);
  rows[2] = _mm512_unpacklo_epi64(upper01, upper23);
  rows[3] = _mm512_unpackhi_epi64(upper01, upper23);
}

// The merging form keeps the index where the mask is clear: no blend, and the index is still there for the second half.
[[gnu::always_inline]] inline __m512i look_up(const __m512i* table, __m512i bytes, __mmask64 high) {
  const __m512i upper_done = _mm512_mask2_permutex2var_epi8(table[2], bytes, high, table[3]);
  return _mm512_mask2_permutex2var_epi8(table[0], upper_done, _knot_mask64(high), table[1]);
}

// sum_i digits[b_i] * -(what the weights are), for the eight bytes in a pair of rows.
struct Weights {
  __m512i first;
  __m512i second;
};

[[gnu::always_inline]] inline __m512i add_eight(__m512i sum, const __m512i* digits, Weights weights) {
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, digits[0], weights.first), digits[1], weights.second);
}

// low + 256 * high mod 2^16, and mod 2^24 where `high` counts mod 2^16 only: what the instruction reads of it.
[[gnu::always_inline]] inline __m512i join(__m512i low, __m512i high) {
  return _mm512_dpwssd_epi32(low, high, _mm512_set1_epi32(256));
}

// Tops are h / 2^40 in the low 24 bits of a dword, the last 8 a fraction; in units of 2^48 and less the whole number
// below, the truth is -0.02 to 1.01 more at the end of a group (the planes 0-3 are left out) and -0.32 to 1.07 in its
// middle, where sixteen times that error and the plane 4 of four bytes add up. One more makes that at most 1.32 too
// high. Each byte doubles the error and adds less than 1 (the planes 0-5 of its entry): 3.7 after one, 17.6 after
// three. Where the hash is below 2^48, its run is then 0 to 4 there, or 0 to 18.
constexpr int kEarlySuspectsBelow = 5;
constexpr int kLateSuspectsBelow = 19;

// The least tops, as the upper or lower word of a dword, of the two halves of some eight bytes: of those before a half
// and behind its first byte, and of those behind its second and third.
struct Least {
  __m512i early;
  __m512i late;
};

// `start` and `middle` are the tops before the halves, digits6 and digits7 the top planes of the bytes' entries.
[[gnu::always_inline]] inline Least least_of_eight(__m512i start, __m512i middle, const __m512i* digits6,
                                                   const __m512i* digits7) {
  constexpr __mmask64 kOddBytes = 0xaaaaaaaaaaaaaaaaULL;
  constexpr __mmask64 kOddWords = 0xccccccccccccccccULL;
  const __m512i up = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14));
  const __m512i down = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 0, 3, 0, 5, 0, 7, 0, 9, 0, 11, 0, 13, 0, 15, 0));
  const __m512i whole = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 2, 0, 0, 5, 6, 0, 0, 9, 10, 0, 0, 13, 14));
  const __m512i tops = _mm512_mask_shuffle_epi8(_mm512_srli_epi32(start, 8), kOddWords, middle, whole);
  // The top 16 bits of -T of a byte of the first half, and of the one four bytes behind it.
  const __m512i entry0 = _mm512_mask_shuffle_epi8(digits6[0], kOddBytes, digits7[0], up);
  const __m512i entry1 = _mm512_mask_shuffle_epi8(digits7[0], ~kOddBytes, digits6[0], down);
  const __m512i entry2 = _mm512_mask_shuffle_epi8(digits6[1], kOddBytes, digits7[1], up);
  const __m512i top0 = _mm512_add_epi16(tops, _mm512_set1_epi16(1));
  const __m512i top1 = _mm512_sub_epi16(_mm512_add_epi16(top0, top0), entry0);
  const __m512i top2 = _mm512_sub_epi16(_mm512_add_epi16(top1, top1), entry1);
  const __m512i top3 = _mm512_sub_epi16(_mm512_add_epi16(top2, top2), entry2);
  return {_mm512_min_epu16(top0, top1), _mm512_min_epu16(top2, top3)};
}

struct FastLane {
  const std::uint8_t* at;
  std::uint64_t hash;
  std::uint32_t* mask;
};

// A part of the fast lane is walked in a step for each plane.
constexpr std::size_t kStepBytes = kGearPart * kGearFastRate / 8;

[[gnu::always_inline]] inline void step(FastLane& fast) {
#pragma GCC unroll 3
  for (std::size_t four = 0; four < kStepBytes; four += 4) {
    fast.hash = walk_four(fast.hash, fast.at + four, kFastLane, fast.mask);
  }
  fast.at += kStepBytes;
}
static_assert(kStepBytes % 4 == 0 && kStepBytes * 8 == kGearPart * kGearFastRate);

// Bytes of a dword, each the negative of what is given.
constexpr int four_weights(unsigned a, unsigned b, unsigned c, unsigned d) {
  return static_cast<int>(((0 - a) & 0xff) | ((0 - b) & 0xff) << 8 | ((0 - c) & 0xff) << 16 | ((0 - d) & 0xff) << 24);
}

// A part of every lane. Returns the vector lanes with a suspect, or one right before it.
[[gnu::always_inline]] inline std::uint32_t walk_part(const __m512i* rows, __m512i* state, __m512i* top,
                                                      FastLane& fast) {
  const Weights all{_mm512_set1_epi32(four_weights(128, 64, 8, 4)), _mm512_set1_epi32(four_weights(32, 16, 2, 1))};
  const Weights half{_mm512_set1_epi32(four_weights(8, 4, 0, 0)), _mm512_set1_epi32(four_weights(2, 1, 0, 0))};
  const __m512i zero = _mm512_setzero_si512();
  // Read where they are: compilers copy tables they know to the stack, 2 KiB a call.
  const std::uint8_t(*digit)[256] = kPlanes.digit;
  asm("" : "+r"(digit));
  __mmask64 high[4];
  for (int i = 0; i < 4; ++i) high[i] = _mm512_movepi8_mask(rows[i]);
  __m512i before[2] = {zero, zero};  // D of the plane below, before each eight bytes
  __m512i digits[8][4];
  __m512i sums[8][2];
  __m512i halves[8][2];
#pragma GCC unroll 8
  for (unsigned plane = 0; plane < 8; ++plane) {
    __m512i table[4];
    for (int i = 0; i < 4; ++i) table[i] = _mm512_load_si512(digit[plane] + 64 * i);
    for (int i = 0; i < 4; ++i) digits[plane][i] = look_up(table, rows[i], high[i]);
    const __m512i old = state[plane];
    for (int g = 0; g < 2; ++g) sums[plane][g] = add_eight(before[g], digits[plane] + 2 * g, all);
    state[plane] = sums[plane][1];
    before[0] = old;
    before[1] = sums[plane][0];
    if (plane >= 5) {
      for (int g = 0; g < 2; ++g) halves[plane][g] = add_eight(zero, digits[plane] + 2 * g, half);
    }
    step(fast);
  }
  Least least[2];
  for (int g = 0; g < 2; ++g) {
    const __m512i middle =
        join(_mm512_add_epi32(halves[5][g], _mm512_slli_epi32(*top, 4)), join(halves[6][g], halves[7][g]));
    least[g] = least_of_eight(*top, middle, digits[6] + 2 * g, digits[7] + 2 * g);
    *top = join(_mm512_add_epi32(sums[5][g], _mm512_srai_epi32(sums[4][g], 8)), join(sums[6][g], sums[7][g]));
  }
  const __mmask32 early =
      _mm512_cmplt_epu16_mask(_mm512_min_epu16(least[0].early, least[1].early), _mm512_set1_epi16(kEarlySuspectsBelow));
  const __mmask32 late =
      _mm512_cmplt_epu16_mask(_mm512_min_epu16(least[0].late, least[1].late), _mm512_set1_epi16(kLateSuspectsBelow));
  const std::uint32_t words = early | late;
  return _pext_u32(words | words >> 1, 0x55555555);
}

// Behind the last byte of a walk, which no part's first top stands for.
[[gnu::always_inline]] inline std::uint32_t suspects_at_end(__m512i top) {
  const __m512i whole = _mm512_add_epi16(_mm512_srli_epi32(top, 8), _mm512_set1_epi32(1));
  return _mm512_cmplt_epu32_mask(_mm512_and_si512(whole, _mm512_set1_epi32(0xffff)),
                                 _mm512_set1_epi32(kEarlySuspectsBelow));
}

void walk(GearLanes* lanes, std::size_t blocks, std::uint32_t* suspects) noexcept {
  // A copy: stores to the caller's memory would be loaded again at once, which costs a fifth of the speed.
  __m512i* saved = reinterpret_cast<__m512i*>(lanes->state);
  __m512i state[8];
  for (int plane = 0; plane < 8; ++plane) state[plane] = saved[plane];
  __m512i top = saved[8];
  const std::size_t parts = blocks * kGearParts;
  std::memset(suspects, 0, parts * sizeof *suspects);
  FastLane fast{lanes->at[kFastLane], lanes->fast_hash, suspects};
  for (std::size_t part = 0; part < parts; ++part) {
    __m512i rows[4];
    load_rows(lanes->at, part * kGearPart, rows);
    fast.mask = suspects + part;
    suspects[part] |= walk_part(rows, state, &top, fast);
  }
  suspects[parts - 1] |= suspects_at_end(top);
  for (unsigned lane = 0; lane < kVectorLanes; ++lane) lanes->at[lane] += parts * kGearPart;
  lanes->at[kFastLane] = fast.at;
  lanes->fast_hash = fast.hash;
  for (int plane = 0; plane < 8; ++plane) saved[plane] = state[plane];
  saved[8] = top;
}

}  // namespace

const ChunkKernels chunk_kernels_avx512 = {"avx512", kVectorLanes + 1, true, walk};

}  // namespace textnlp_fast

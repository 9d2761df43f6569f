// The Gear hash of sixteen stretches at once, without a gather.
//
// h is a sum over the last 64 bytes, h = sum_j T[b_j] << j. T is cut into eight planes of signed 8-bit digits, and a
// byte looks a plane up in two byte permutes of 128 entries. Eight bytes in a row then add to plane k
//     sum_i digit_k[b_i] * 2^(7-i):
// two dot products (VNNI). With D_k(g) for the sum of all contributions of weight 2^(8k) after group g of eight bytes,
//     D_k(g) = D_(k-1)(g-1) + that sum,    h = sum_k D_k << 8k mod 2^64:
// moving on by eight bytes renames the planes, nothing is shifted and no carry is propagated. The top 32 bits of h
// follow every eight bytes (and four bytes later from the planes 5-7); between, the top 16 run on in plain arithmetic
// with an error that doubles a byte and is bounded, so a byte within it is a suspect.
// gcc 12's own headers leave "undefined" vectors undefined, and warn of it at every use.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "chunk/chunk_kernels.h"
#include "chunk/gear_table.h"

#if defined(__GNUC__) && !defined(__AVX512VNNI__)
#error "built without -mavx512vnni"
#endif

namespace textnlp_fast {
namespace {

struct alignas(64) Planes {
  std::int8_t digit[8][256];
};

constexpr Planes make_planes() {
  Planes planes{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::uint64_t rest = kGear[byte];
    for (unsigned plane = 0; plane < 8; ++plane) {
      const auto digit = static_cast<std::int8_t>(rest & 0xff);
      planes.digit[plane][byte] = digit;
      // Arithmetic mod 2^64: what a negative digit borrows goes to the next plane.
      rest = (rest - static_cast<std::uint64_t>(static_cast<std::int64_t>(digit))) >> 8;
    }
  }
  return planes;
}

constexpr Planes kPlanes = make_planes();

// Dword t of lane l becomes lane l of rows[t].
[[gnu::always_inline]] inline void load_transposed(const std::uint8_t* const* at, std::size_t offset, __m512i* rows) {
  __m512i a[16];
  __m512i b[16];
#pragma GCC unroll 16
  for (int l = 0; l < 16; ++l) a[l] = _mm512_loadu_si512(at[l] + offset);
#pragma GCC unroll 8
  for (int l = 0; l < 16; l += 2) {
    b[l] = _mm512_unpacklo_epi32(a[l], a[l + 1]);
    b[l + 1] = _mm512_unpackhi_epi32(a[l], a[l + 1]);
  }
#pragma GCC unroll 4
  for (int l = 0; l < 16; l += 4) {
    a[l] = _mm512_unpacklo_epi64(b[l], b[l + 2]);
    a[l + 1] = _mm512_unpackhi_epi64(b[l], b[l + 2]);
    a[l + 2] = _mm512_unpacklo_epi64(b[l + 1], b[l + 3]);
    a[l + 3] = _mm512_unpackhi_epi64(b[l + 1], b[l + 3]);
  }
  // a[4i + j]: dwords j, j+4, j+8, j+12 (one a 128-bit part) of lanes 4i .. 4i+3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i p = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
    const __m512i q = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
    const __m512i r = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
    const __m512i s = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
    rows[j] = _mm512_shuffle_i32x4(p, q, 0x88);
    rows[j + 8] = _mm512_shuffle_i32x4(p, q, 0xdd);
    rows[j + 4] = _mm512_shuffle_i32x4(r, s, 0x88);
    rows[j + 12] = _mm512_shuffle_i32x4(r, s, 0xdd);
  }
}

// Between exact points the top of h is carried as v = h / 2^48 with kFraction more bits, in the low 28 bits of a dword.
// It starts within 0.2 of the truth (the planes 0-3 left out); each byte doubles the error and adds 0.51 (the planes
// 0-5 of its entry), 5.2 after three. A bias of 0.85 doubles along and keeps v above zero: where the hash is below
// 2^48, v is below 0.85 * 8 + 5.2 + 1 at the most, which is less than kSuspectBelow.
constexpr int kFraction = 12;
constexpr int kBias = 55705;  // 0.85 of 2^16
constexpr int kSuspectBelow = 16;

[[gnu::always_inline]] inline __m512i top_of(__m512i top32) {
  return _mm512_srai_epi32(_mm512_add_epi32(top32, _mm512_set1_epi32(kBias)), 16 - kFraction);
}

// The least v, unsigned and in the upper bits, behind each of four bytes: `before` is v before them, `after` behind.
[[gnu::always_inline]] inline __m512i least_of_four(__m512i before, __m512i after, __m512i digits7, __m512i digits6) {
  // The top 16 bits of the four entries as words: of bytes 0 and 2, and of bytes 1 and 3. As a word's low byte a
  // negative digit counts 256 too much, which its upper byte gives back.
  const __m512i upper = _mm512_mask_add_epi8(digits7, _mm512_movepi8_mask(digits6), digits7, _mm512_set1_epi8(-1));
  const __m512i up = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14));
  const __m512i down = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 0, 3, 0, 5, 0, 7, 0, 9, 0, 11, 0, 13, 0, 15, 0));
  const __m512i words02 = _mm512_mask_shuffle_epi8(digits6, 0xaaaaaaaaaaaaaaaaULL, upper, up);
  const __m512i words13 = _mm512_mask_shuffle_epi8(upper, 0x5555555555555555ULL, digits6, down);
  const __m512i low_word = _mm512_set1_epi32(1 << kFraction);
  const __m512i high_word = _mm512_set1_epi32(1 << (kFraction + 16));
  const __m512i after1 = _mm512_dpwssd_epi32(_mm512_add_epi32(before, before), words02, low_word);
  const __m512i after2 = _mm512_dpwssd_epi32(_mm512_add_epi32(after1, after1), words13, low_word);
  const __m512i after3 = _mm512_dpwssd_epi32(_mm512_add_epi32(after2, after2), words02, high_word);
  constexpr unsigned kAlign = 16 - kFraction;
  return _mm512_min_epu32(_mm512_min_epu32(_mm512_slli_epi32(after1, kAlign), _mm512_slli_epi32(after2, kAlign)),
                          _mm512_min_epu32(_mm512_slli_epi32(after3, kAlign), _mm512_slli_epi32(after, kAlign)));
}

// The merging form keeps the index where the mask is clear: no blend, and the index is still there for the second half.
[[gnu::always_inline]] inline __m512i look_up(const __m512i* table, __m512i bytes, __mmask64 high) {
  const __m512i upper_done = _mm512_mask2_permutex2var_epi8(table[2], bytes, high, table[3]);
  return _mm512_mask2_permutex2var_epi8(table[0], upper_done, _knot_mask64(high), table[1]);
}

// Sixteen bytes a lane: rows[0] to rows[3] hold four each. Returns the lanes with a suspect.
[[gnu::always_inline]] inline __mmask16 walk_sixteen(const __m512i* rows, __m512i* state, __m512i* top32) {
  const __m512i weights_first = _mm512_set1_epi32(0x10204080);
  const __m512i weights_second = _mm512_set1_epi32(0x01020408);
  const __m512i zero = _mm512_setzero_si512();
  // Read where they are: compilers copy tables they know to the stack, 2 KiB a call.
  const std::int8_t(*digit)[256] = kPlanes.digit;
  asm("" : "+r"(digit));
  __mmask64 high[4];
  __m512i digits6[4];
  __m512i digits7[4];
  for (int i = 0; i < 4; ++i) high[i] = _mm512_movepi8_mask(rows[i]);
  __m512i before = zero;   // D of the plane below, before these bytes
  __m512i between = zero;  // and after the first eight
  __m512i top[5] = {*top32, _mm512_slli_epi32(*top32, 4), zero, zero, zero};
#pragma GCC unroll 8
  for (int plane = 0; plane < 8; ++plane) {
    __m512i table[4];
    for (int i = 0; i < 4; ++i) table[i] = _mm512_load_si512(digit[plane] + 64 * i);
    __m512i digits[4];
    for (int i = 0; i < 4; ++i) digits[i] = look_up(table, rows[i], high[i]);
    const __m512i old = state[plane];
    const __m512i sum =
        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(before, weights_first, digits[0]), weights_second, digits[1]);
    const __m512i sum2 =
        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(between, weights_first, digits[2]), weights_second, digits[3]);
    state[plane] = sum2;
    before = old;
    between = sum;
    if (plane >= 4) {
      const unsigned shift = 8 * static_cast<unsigned>(plane - 4);
      top[2] = _mm512_add_epi32(top[2], _mm512_slli_epi32(sum, shift));
      top[4] = _mm512_add_epi32(top[4], _mm512_slli_epi32(sum2, shift));
      if (plane >= 5) {
        top[1] =
            _mm512_add_epi32(top[1], _mm512_slli_epi32(_mm512_dpbusd_epi32(zero, weights_second, digits[0]), shift));
        top[3] =
            _mm512_add_epi32(top[3], _mm512_slli_epi32(_mm512_dpbusd_epi32(zero, weights_second, digits[2]), shift));
      }
    }
    for (int i = 0; i < 4; ++i) {
      if (plane == 6) digits6[i] = digits[i];
      if (plane == 7) digits7[i] = digits[i];
    }
  }
  top[3] = _mm512_add_epi32(top[3], _mm512_slli_epi32(top[2], 4));
  *top32 = top[4];
  for (__m512i& value : top) value = top_of(value);
  const __m512i least01 = _mm512_min_epu32(least_of_four(top[0], top[1], digits7[0], digits6[0]),
                                           least_of_four(top[1], top[2], digits7[1], digits6[1]));
  const __m512i least23 = _mm512_min_epu32(least_of_four(top[2], top[3], digits7[2], digits6[2]),
                                           least_of_four(top[3], top[4], digits7[3], digits6[3]));
  return _mm512_testn_epi32_mask(_mm512_min_epu32(least01, least23), _mm512_set1_epi32(-(kSuspectBelow << 16)));
}

void walk(GearLanes* lanes, std::size_t blocks, std::uint16_t* suspects) noexcept {
  // A copy: stores to the caller's memory would be loaded again at once, which costs a fifth of the speed.
  __m512i* saved = reinterpret_cast<__m512i*>(lanes->state);
  __m512i state[8];
  for (int plane = 0; plane < 8; ++plane) state[plane] = saved[plane];
  __m512i top32 = saved[8];
  for (std::size_t block = 0; block < blocks; ++block) {
    __m512i rows[16];
    load_transposed(lanes->at, block * kGearBlock, rows);
    for (unsigned part = 0; part < kGearParts; ++part) {
      suspects[block * kGearParts + part] = walk_sixteen(rows + 4 * part, state, &top32);
    }
  }
  for (const std::uint8_t*& at : lanes->at) at += blocks * kGearBlock;
  for (int plane = 0; plane < 8; ++plane) saved[plane] = state[plane];
  saved[8] = top32;
}

}  // namespace

const ChunkKernels chunk_kernels_avx512 = {"avx512", 16, walk};

}  // namespace textnlp_fast

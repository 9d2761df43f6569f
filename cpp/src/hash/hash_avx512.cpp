// The order of the rounds is written as it should run. GCC's scheduler and its reassociation of sums (which puts the
// message words on the longest chain) cost a tenth of the speed; its AVX-512 headers warn of their own undefined
// values.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns2", "no-tree-reassoc")
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "hash/hash_kernels.h"
#include "hash/hash_lanes.h"
#include "hash/hash_rows.h"
#include "hash/hash_x86.h"

namespace textnlp_fast {
namespace {

struct Lanes16 {
  using Reg = __m512i;
  static constexpr std::size_t kLanes = 16;
  static constexpr int kChains = 4;
  static Reg splat(std::uint32_t word) { return _mm512_set1_epi32(static_cast<int>(word)); }
  static Reg load(const std::uint32_t* words) { return _mm512_load_si512(words); }
  static Reg add(Reg a, Reg b) { return _mm512_add_epi32(a, b); }
  static Reg exclusive_or(Reg a, Reg b) { return _mm512_xor_si512(a, b); }
  static Reg rotate16(Reg a) { return _mm512_ror_epi32(a, 16); }
  static Reg rotate12(Reg a) { return _mm512_ror_epi32(a, 12); }
  static Reg rotate8(Reg a) { return _mm512_ror_epi32(a, 8); }
  static Reg rotate7(Reg a) { return _mm512_ror_epi32(a, 7); }
  [[gnu::always_inline]] static void prefetch(const void* address) {
    _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
  }

  static __m128i load128(const std::uint8_t* bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)); }

  // 16 bytes of lanes i, i + 4, i + 8 and i + 12. A masked broadcast from memory is a load and a blend, which leaves
  // the shuffle port (shared with the rotations) alone.
  [[gnu::always_inline]] static Reg gather4(const std::uint8_t* const* lanes, std::size_t at) {
    Reg x = _mm512_castsi128_si512(load128(lanes[0] + at));
    x = _mm512_mask_broadcast_i32x4(x, 0x00F0, load128(lanes[4] + at));
    x = _mm512_mask_broadcast_i32x4(x, 0x0F00, load128(lanes[8] + at));
    return _mm512_mask_broadcast_i32x4(x, 0xF000, load128(lanes[12] + at));
  }

  // Four words of every lane: the quarters are put in place by the loads, so two unpacks finish the transposition.
  [[gnu::always_inline]] static void load_quarter(const std::uint8_t* const* lanes, std::size_t at, Reg* m) {
    const Reg x0 = gather4(lanes, at), x1 = gather4(lanes + 1, at);
    const Reg x2 = gather4(lanes + 2, at), x3 = gather4(lanes + 3, at);
    const Reg low01 = _mm512_unpacklo_epi32(x0, x1), high01 = _mm512_unpackhi_epi32(x0, x1);
    const Reg low23 = _mm512_unpacklo_epi32(x2, x3), high23 = _mm512_unpackhi_epi32(x2, x3);
    m[0] = _mm512_unpacklo_epi64(low01, low23);
    m[1] = _mm512_unpackhi_epi64(low01, low23);
    m[2] = _mm512_unpacklo_epi64(high01, high23);
    m[3] = _mm512_unpackhi_epi64(high01, high23);
  }
  [[gnu::always_inline]] static void load_message(const std::uint8_t* const* lanes, std::size_t at, Reg* m) {
    load_quarter(lanes, at, m);
    load_quarter(lanes, at + 16, m + 4);
    load_quarter(lanes, at + 32, m + 8);
    load_quarter(lanes, at + 48, m + 12);
  }

  [[gnu::always_inline]] static void store_half(const Reg* h, std::uint8_t* const* out, std::size_t at) {
    const Reg low01 = _mm512_unpacklo_epi32(h[0], h[1]), high01 = _mm512_unpackhi_epi32(h[0], h[1]);
    const Reg low23 = _mm512_unpacklo_epi32(h[2], h[3]), high23 = _mm512_unpackhi_epi32(h[2], h[3]);
    store_quarters(_mm512_unpacklo_epi64(low01, low23), out, at);
    store_quarters(_mm512_unpackhi_epi64(low01, low23), out + 1, at);
    store_quarters(_mm512_unpacklo_epi64(high01, high23), out + 2, at);
    store_quarters(_mm512_unpackhi_epi64(high01, high23), out + 3, at);
  }
  [[gnu::always_inline]] static void store_quarters(Reg x, std::uint8_t* const* out, std::size_t at) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[0] + at), _mm512_castsi512_si128(x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[4] + at), _mm512_extracti32x4_epi32(x, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[8] + at), _mm512_extracti32x4_epi32(x, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out[12] + at), _mm512_extracti32x4_epi32(x, 3));
  }
  [[gnu::always_inline]] static void store_values(const Reg* h, std::uint8_t* const* outs) {
    store_half(h, outs, 0);
    store_half(h + 4, outs, 16);
  }
};

struct Lanes8 : Lanes8Base {
  static constexpr int kChains = 4;
  static Reg rotate16(Reg a) { return _mm256_ror_epi32(a, 16); }
  static Reg rotate12(Reg a) { return _mm256_ror_epi32(a, 12); }
  static Reg rotate8(Reg a) { return _mm256_ror_epi32(a, 8); }
  static Reg rotate7(Reg a) { return _mm256_ror_epi32(a, 7); }
};

struct Rows : RowsBase {
  static Reg rotate16(Reg a) { return _mm_ror_epi32(a, 16); }
  static Reg rotate12(Reg a) { return _mm_ror_epi32(a, 12); }
  static Reg rotate8(Reg a) { return _mm_ror_epi32(a, 8); }
  static Reg rotate7(Reg a) { return _mm_ror_epi32(a, 7); }

  // The block is one register, so one permutation brings a round's sixteen words into order.
  struct Message {
    __m512i words;
    explicit Message(const std::uint8_t* block) : words(_mm512_loadu_si512(block)) {}

    template <int kRound>
    [[gnu::always_inline]] void rows(Reg& x, Reg& y, Reg& z, Reg& t) const {
      constexpr const std::uint8_t* order = kSchedule.word[kRound];
      const __m512i index =
          _mm512_setr_epi32(order[0], order[2], order[4], order[6], order[1], order[3], order[5], order[7],
                            order[diagonal_word(0, 0)], order[diagonal_word(1, 0)], order[diagonal_word(2, 0)],
                            order[diagonal_word(3, 0)], order[diagonal_word(0, 1)], order[diagonal_word(1, 1)],
                            order[diagonal_word(2, 1)], order[diagonal_word(3, 1)]);
      const __m512i ordered = _mm512_permutexvar_epi32(index, words);
      x = _mm512_castsi512_si128(ordered);
      y = _mm512_extracti32x4_epi32(ordered, 1);
      z = _mm512_extracti32x4_epi32(ordered, 2);
      t = _mm512_extracti32x4_epi32(ordered, 3);
    }
  };
};

void hash_each(const HashNode& node, const HashInput* inputs, std::size_t count) noexcept {
  while (count > 0) {
    std::size_t taken = 1;
    if (count > 8) {
      taken = count < 16 ? count : 16;
      hash_lanes<Lanes16>(node, inputs, taken, count - taken);
    } else if (count > 1) {
      taken = count;
      hash_lanes<Lanes8>(node, inputs, taken, 0);
    } else {
      hash_input<Rows>(node, *inputs);
    }
    inputs += taken;
    count -= taken;
  }
}

}  // namespace

const HashKernels hash_kernels_avx512 = {"avx512", hash_one_rows<Rows>, hash_each};

}  // namespace textnlp_fast

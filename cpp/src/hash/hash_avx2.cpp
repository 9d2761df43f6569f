// The order of the rounds is written as it should run. GCC's scheduler and its reassociation of sums (which puts the
// message words on the longest chain) cost a tenth of the speed.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns2", "no-tree-reassoc")
#endif

#include <immintrin.h>

#include "hash/hash_kernels.h"
#include "hash/hash_lanes.h"
#include "hash/hash_rows.h"
#include "hash/hash_x86.h"

namespace textnlp_fast {
namespace {

// AVX2 has no rotation: whole bytes go by a byte shuffle, the others by two shifts.
struct Lanes8 : Lanes8Base {
  static constexpr int kChains = 2;
  static Reg rotate16(Reg a) {
    return _mm256_shuffle_epi8(a, _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 2, 3, 0, 1, 6,
                                                   7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  }
  static Reg rotate8(Reg a) {
    return _mm256_shuffle_epi8(a, _mm256_setr_epi8(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 1, 2, 3, 0, 5,
                                                   6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
  }
  static Reg rotate12(Reg a) { return _mm256_or_si256(_mm256_srli_epi32(a, 12), _mm256_slli_epi32(a, 20)); }
  static Reg rotate7(Reg a) { return _mm256_or_si256(_mm256_srli_epi32(a, 7), _mm256_slli_epi32(a, 25)); }
};

struct Rows : RowsBase {
  static Reg rotate16(Reg a) {
    return _mm_shuffle_epi8(a, _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  }
  static Reg rotate8(Reg a) {
    return _mm_shuffle_epi8(a, _mm_setr_epi8(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
  }
  static Reg rotate12(Reg a) { return _mm_or_si128(_mm_srli_epi32(a, 12), _mm_slli_epi32(a, 20)); }
  static Reg rotate7(Reg a) { return _mm_or_si128(_mm_srli_epi32(a, 7), _mm_slli_epi32(a, 25)); }

  // Words are picked one by one from the block; no round waits for that, as it depends on the input alone.
  struct Message {
    const std::uint8_t* block;
    explicit Message(const std::uint8_t* from) : block(from) {}

    std::uint32_t word(int index) const {
      std::uint32_t value;
      __builtin_memcpy(&value, block + 4 * index, sizeof value);
      return value;
    }
    template <int kRound>
    [[gnu::always_inline]] void rows(Reg& x, Reg& y, Reg& z, Reg& t) const {
      constexpr const std::uint8_t* order = kSchedule.word[kRound];
      x = set(word(order[0]), word(order[2]), word(order[4]), word(order[6]));
      y = set(word(order[1]), word(order[3]), word(order[5]), word(order[7]));
      z = set(word(order[diagonal_word(0, 0)]), word(order[diagonal_word(1, 0)]), word(order[diagonal_word(2, 0)]),
              word(order[diagonal_word(3, 0)]));
      t = set(word(order[diagonal_word(0, 1)]), word(order[diagonal_word(1, 1)]), word(order[diagonal_word(2, 1)]),
              word(order[diagonal_word(3, 1)]));
    }
  };
};

void hash_each(const HashNode& node, const HashInput* inputs, std::size_t count) noexcept {
  while (count > 0) {
    const std::size_t taken = count < Lanes8::kLanes ? count : Lanes8::kLanes;
    if (taken == 1) {
      hash_input<Rows>(node, *inputs);
    } else {
      hash_lanes<Lanes8>(node, inputs, taken, count - taken);
    }
    inputs += taken;
    count -= taken;
  }
}

}  // namespace

const HashKernels hash_kernels_avx2 = {"avx2", hash_one_rows<Rows>, hash_each};

}  // namespace textnlp_fast

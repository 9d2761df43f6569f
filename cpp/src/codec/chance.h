// Bits whose chance is learned as they come.
#pragma once
#include <cstdint>

#include "codec/pair_rans.h"

namespace textnlp_fast {

constexpr unsigned kBitLog = 16;

constexpr unsigned kMostSeen = 254;

struct ChanceRates {
  std::uint32_t of[kMostSeen + 1];
  constexpr ChanceRates() : of{} {
    for (unsigned seen = 0; seen <= kMostSeen; ++seen) of[seen] = 65536u / (seen + 2);
  }
};
inline constexpr ChanceRates kRates;

// 1 / (seen + 2), of 2^16.
TEXTNLP_FAST_HD inline std::uint32_t rate_after(unsigned seen) {
#if defined(__CUDA_ARCH__)
  return 65536u / (seen + 2);
#else
  return kRates.of[seen];
#endif
}

struct Chance {
  std::uint16_t one = 32768;  // of 2^kBitLog
  std::uint16_t seen = 0;

  // Moves by 1 / (seen + 2) of what is missing, in the end by 1 / 256.
  TEXTNLP_FAST_HD void learn(bool bit) {
    const std::uint32_t rate = rate_after(seen);
    // No branch on the bit: it would be guessed wrong.
    const std::uint32_t ones = 0u - (bit ? 1u : 0u);
    const std::uint32_t missing = one ^ (ones & 0xffff);
    const std::uint32_t moved = missing * rate >> 16;
    one = static_cast<std::uint16_t>(one + ((moved ^ ~ones) - ~ones));
    seen = static_cast<std::uint16_t>(seen + (seen < kMostSeen ? 1 : 0));
  }

  // The share of 1, which is never nothing and never all.
  [[nodiscard]] TEXTNLP_FAST_HD std::uint32_t share() const {
    constexpr std::uint32_t kLeast = 32;
    constexpr std::uint32_t kMost = (1u << kBitLog) - kLeast;
    return one < kLeast ? kLeast : one > kMost ? kMost : one;
  }
};

inline void write_bit(PairWriter& out, Chance& chance, bool bit) {
  const std::uint32_t one = chance.share();
  out.put(bit ? 0 : one, bit ? one : (1u << kBitLog) - one, kBitLog);
  chance.learn(bit);
}

TEXTNLP_FAST_HD inline bool read_bit(PairReader& in, Chance& chance) {
  const std::uint32_t one = chance.share();
  const bool bit = in.slot(kBitLog) < one;
  in.advance(bit ? 0 : one, bit ? one : (1u << kBitLog) - one, kBitLog);
  chance.learn(bit);
  return bit;
}

// The same in arithmetic, 0 or 1: for bits that branches would be guessed wrong on.
TEXTNLP_FAST_HD inline std::uint32_t read_straight(PairReader& in, Chance& chance) {
  const std::uint32_t one = chance.share();
  const std::uint32_t slot = in.slot(kBitLog);
  const std::uint32_t bit = (slot - one) >> 31;
  const std::uint32_t zero = bit - 1;  // all ones if the bit is 0
  in.take(slot - (one & zero), (one ^ zero) + (((1u << kBitLog) + 1) & zero), kBitLog);
  chance.learn(bit != 0);
  return bit;
}

}  // namespace textnlp_fast

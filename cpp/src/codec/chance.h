// Bits whose chance is learned as they come.
#pragma once
#include <cstdint>

#include "codec/pair_rans.h"

namespace textnlp_fast {

constexpr unsigned kBitLog = 16;

struct Chance {
  std::uint16_t one = 32768;  // of 2^kBitLog
  std::uint16_t seen = 0;

  // Moves by 1 / (seen + 2) of what is missing, later ever by 1 / 128.
  void learn(bool bit) {
    constexpr unsigned kMostSeen = 254;
    const std::uint32_t rate = 65536u / (seen + 2u);
    if (bit) {
      one = static_cast<std::uint16_t>(one + ((65535u - one) * rate >> 16));
    } else {
      one = static_cast<std::uint16_t>(one - (one * rate >> 16));
    }
    if (seen < kMostSeen) ++seen;
  }

  // The share of 1, which is never nothing and never all.
  [[nodiscard]] std::uint32_t share() const {
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

inline bool read_bit(PairReader& in, Chance& chance) {
  const std::uint32_t one = chance.share();
  const bool bit = in.slot(kBitLog) < one;
  in.advance(bit ? 0 : one, bit ? one : (1u << kBitLog) - one, kBitLog);
  chance.learn(bit);
  return bit;
}

}  // namespace textnlp_fast

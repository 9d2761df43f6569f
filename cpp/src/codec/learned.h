// The elements of a learned frame: what changed and how far is told bit by bit, under chances that learn, and so needs
// no tables. Signs, which are as likely as not, are bits beside them; the pair's states begin with the last ones.
// docs/format.md, "Learned".
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/byte_reader.h"
#include "codec/chance.h"
#include "codec/codec_kernels.h"
#include "codec/listed.h"
#include "codec/pair_rans.h"

namespace textnlp_fast {

// Elements that are told, at most: they come one by one.
constexpr std::size_t kMostLearned = std::size_t{1} << 14;
constexpr unsigned kLearnedGroup = 32;
constexpr unsigned kSignsInStates = 2 * kHeldBits;

// The chances, by context. Cold contexts share that behind the last listed one: few of their elements are told.
struct ChangeModel {
  Chance changed[kMaxContexts];
  Chance larger[kMaxContexts + 1];   // than 1
  Chance further[kMaxContexts + 1];  // than a larger bucket
};

// Bytes of signs behind the pair, where `signs` are told: the states have no room for these.
TEXTNLP_FAST_HD inline std::size_t signs_behind(std::size_t signs) {
  return signs <= kSignsInStates ? 0 : (signs - kSignsInStates + 7) / 8;
}

// Signs of changed elements, in order, kMostLearned at most.
class Signs {
 public:
  void clear() { count_ = 0; }
  [[nodiscard]] std::size_t behind() const { return signs_behind(count_); }
  [[nodiscard]] const std::uint8_t* bytes() const { return bytes_; }
  // Those that the states hold.
  [[nodiscard]] std::uint64_t held() const;
  void put(bool negative) {
    const unsigned before = count_ % 8 == 0 ? 0u : bytes_[count_ / 8];
    bytes_[count_ / 8] = static_cast<std::uint8_t>(before | (negative ? 1u : 0u) << count_ % 8);
    ++count_;
  }

 private:
  std::uint8_t bytes_[kMostLearned / 8] = {};
  std::size_t count_ = 0;
};

// `cold`: the first context that is not listed.
void put_changes(PairWriter& out, unsigned element_bytes, const DeltaRule& rule, unsigned cold, const Listed& listed,
                 Signs& signs);

// Ends the pair and takes the rest of the body, which are signs. False if they do not fit. At most kMostLearned
// elements are listed.
bool take_changes(PairReader& in, ByteReader& reader, unsigned element_bytes, const DeltaRule& rule, unsigned cold,
                  Listed& listed);

}  // namespace textnlp_fast

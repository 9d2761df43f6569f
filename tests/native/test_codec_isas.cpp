// Every instruction set against the portable code, on frames long enough for several segments and with every kind of
// change: the same frames, the same elements back, and the same verdict, with the same bytes if it is yes, on a damaged
// payload.
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "textnlp_fast/codec.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Random {
  std::uint64_t state;
  std::uint32_t next() {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state >> 33);
  }
  std::uint32_t below(std::uint32_t limit) { return next() % limit; }
};

// Exponents with the spread of weights: each half as likely as the one above it.
Bytes weights(Dtype dtype, std::size_t elements, Random& random) {
  const std::size_t size = element_size(dtype);
  const unsigned mantissa = dtype == Dtype::f16 ? 10 : dtype == Dtype::f8_e4m3 ? 3 : dtype == Dtype::f8_e5m2 ? 2 : 7;
  Bytes bytes(elements * size);
  for (std::size_t i = 0; i < elements; ++i) {
    std::uint32_t bits = random.next();
    if (size == 2 || (size == 1 && exponent_bits(dtype) != 0)) {
      unsigned exponent = dtype == Dtype::f16 || size == 1 ? 14 : 122;
      while (exponent > 1 && random.below(2) == 0) --exponent;
      const std::uint32_t sign = size == 1 ? 0x80 : 0x8000;
      bits = (bits & sign) | exponent << mantissa | (bits & ((1u << mantissa) - 1));
    }
    std::memcpy(bytes.data() + i * size, &bits, size);
  }
  return bytes;
}

// Packed numbers of four bits, of which `share` in ten thousand move, each by itself.
Bytes moved_nibbles(const Bytes& base, std::uint32_t share, Random& random) {
  Bytes target = base;
  for (std::uint8_t& byte : target) {
    if (random.below(10000) < share) byte = static_cast<std::uint8_t>(byte + 16 * (1 + random.below(3)));
    if (random.below(10000) < share) byte = static_cast<std::uint8_t>(byte - 1 - random.below(2));
  }
  return target;
}

// Moves `share` in ten thousand elements by up to `most` steps.
Bytes moved(const Bytes& base, std::size_t size, std::uint32_t share, std::uint32_t most, Random& random) {
  Bytes target = base;
  for (std::size_t at = 0; at + size <= base.size(); at += size) {
    if (random.below(10000) >= share) continue;
    std::uint32_t bits = 0;
    std::memcpy(&bits, target.data() + at, size);
    const std::uint32_t step = 1 + random.below(most);
    bits = random.below(2) == 0 ? bits + step : bits - step;
    std::memcpy(target.data() + at, &bits, size);
  }
  return target;
}

Bytes encoded(Dtype dtype, const Bytes& target, const Bytes* base) {
  constexpr std::size_t kFrame = std::size_t{1} << 20;
  Bytes payload(encode_bound(target.size(), kFrame));
  std::size_t written = 0;
  CHECK(encode(dtype, target.data(), base == nullptr ? nullptr : base->data(), target.size(), EncodeOptions{kFrame, 1},
               payload.data(), payload.size(), &written)
            .ok());
  payload.resize(written);
  return payload;
}

struct Decoded {
  bool accepted;
  Bytes bytes;
};

Decoded decoded(const Bytes& payload, const Bytes* base, std::size_t size) {
  Decoded result{false, Bytes(size)};
  // Its own allocation, no larger than it must be: a sanitizer sees a read past the end.
  const Bytes exact(payload.begin(), payload.end());
  result.accepted =
      decode(exact.data(), exact.size(), base == nullptr ? nullptr : base->data(), result.bytes.data(), size, 1).ok();
  return result;
}

void agree(Dtype dtype, const Bytes& target, const Bytes* base, Random& random) {
  CHECK(force_isa("portable"));
  const Bytes payload = encoded(dtype, target, base);
  std::vector<Bytes> damaged;
  std::vector<Decoded> verdicts;
  for (unsigned copy = 0; copy < 6; ++copy) {
    Bytes bad = payload;
    // The header and the tables, or anywhere.
    const auto within = static_cast<std::uint32_t>(copy % 2 == 0 && bad.size() > 400 ? 400 : bad.size());
    bad[random.below(within)] ^= static_cast<std::uint8_t>(1u << random.below(8));
    verdicts.push_back(decoded(bad, base, target.size()));
    damaged.push_back(std::move(bad));
  }
  on_every_isa([&] {
    CHECK(encoded(dtype, target, base) == payload);
    const Decoded whole = decoded(payload, base, target.size());
    CHECK(whole.accepted && whole.bytes == target);
    for (std::size_t copy = 0; copy < damaged.size(); ++copy) {
      const Decoded verdict = decoded(damaged[copy], base, target.size());
      CHECK(verdict.accepted == verdicts[copy].accepted);
      CHECK(!verdict.accepted || verdict.bytes == verdicts[copy].bytes);
    }
  });
}

}  // namespace

int main() {
  Random random{11};
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::i16, Dtype::f32, Dtype::f8_e4m3, Dtype::f8_e5m2, Dtype::i8,
                            Dtype::opaque, Dtype::u32}) {
    for (const std::size_t elements : {std::size_t{37}, std::size_t{4099}, std::size_t{140001}}) {
      const Bytes base = weights(dtype, elements, random);
      agree(dtype, base, nullptr, random);
      for (const std::uint32_t share : {0U, 5U, 300U, 1900U, 10000U}) {
        for (const std::uint32_t most : {1U, 40U, 60000U}) {
          agree(dtype, moved(base, element_size(dtype), share, most, random), &base, random);
        }
        agree(dtype, moved_nibbles(base, share, random), &base, random);
      }
    }
  }
  // One weight among many that is larger than all others, by a little and by so much that who counts begins anew.
  for (const std::uint16_t outlier : {std::uint16_t{0x4000}, std::uint16_t{0x4300}, std::uint16_t{0x7f00}}) {
    Bytes base = weights(Dtype::bf16, 140001, random);
    std::memcpy(base.data() + std::size_t{2} * 37, &outlier, sizeof outlier);
    agree(Dtype::bf16, moved(base, 2, 10000, 40, random), &base, random);
  }
  return finish();
}

// The codec: every element type comes back bit for bit, on every instruction set with the same frames, and a damaged
// payload is refused with a place in it.
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
    return static_cast<std::uint32_t>(state >> 32);
  }
};

enum class Kind { zeros, noise, weights };

Bytes make(Kind kind, std::size_t size_bytes, std::uint64_t seed) {
  Bytes bytes(size_bytes);
  Random random{seed};
  for (std::size_t index = 0; index < size_bytes && kind != Kind::zeros; ++index) {
    const std::uint32_t drawn = random.next();
    const bool few = kind == Kind::weights && index % 2 == 1;
    bytes[index] = static_cast<std::uint8_t>(few ? 0x3A + (drawn & 0x83) : drawn);
  }
  return bytes;
}

// Moves one element in `every` by a small step, and now and then sets all its bits: a NaN where the type has one.
Bytes step(const Bytes& base, Dtype dtype, std::size_t every) {
  Bytes target = base;
  const std::size_t element = element_size(dtype);
  for (std::size_t at = 0; at + element <= target.size(); at += every * element) {
    target[at] = static_cast<std::uint8_t>(target[at] + 1 + at % 3);
    if (at / element % 11 == 0) std::memset(target.data() + at, 0xFF, element);
  }
  return target;
}

Bytes encoded(Dtype dtype, const Bytes& target, const Bytes* base, unsigned threads) {
  constexpr std::size_t kFrame = 4096;
  Bytes payload(encode_bound(target.size(), kFrame));
  std::size_t written = 0;
  const Status status = encode(dtype, target.data(), base == nullptr ? nullptr : base->data(), target.size(),
                               EncodeOptions{kFrame, threads}, payload.data(), payload.size(), &written);
  CHECK(status.ok());
  CHECK(written <= payload.size());
  payload.resize(written);
  return payload;
}

void comes_back(const Bytes& payload, const Bytes& target, const Bytes* base) {
  Bytes out(target.size(), 0xA5);
  const std::uint8_t* against = base == nullptr ? nullptr : base->data();
  CHECK(decode(payload.data(), payload.size(), against, out.data(), out.size(), 2).ok());
  CHECK(out == target);
  if (base == nullptr) return;
  out = *base;
  CHECK(decode(payload.data(), payload.size(), out.data(), out.data(), out.size(), 1).ok());
  CHECK(out == target);
}

void round_trips(Dtype dtype, std::vector<Bytes>& frames_of_first_isa, bool first) {
  std::size_t number = 0;
  const auto agree = [&](Bytes payload) {
    if (first) {
      frames_of_first_isa.push_back(std::move(payload));
    } else {
      CHECK(payload == frames_of_first_isa[number]);
    }
    ++number;
  };
  for (const Kind kind : {Kind::zeros, Kind::noise, Kind::weights}) {
    for (const std::size_t elements : {0UL, 1UL, 31UL, 1000UL, 5000UL}) {
      const Bytes base = make(kind, elements * element_size(dtype), 7);
      for (const std::size_t every : {1UL, 50UL}) {
        const Bytes target = step(base, dtype, every);
        const Bytes alone = encoded(dtype, target, nullptr, 1);
        comes_back(alone, target, nullptr);
        agree(alone);
        const Bytes delta = encoded(dtype, target, &base, 2);
        comes_back(delta, target, &base);
        agree(delta);
      }
    }
  }
}

void damage_is_refused() {
  const Bytes base = make(Kind::weights, 16384, 3);
  const Bytes target = step(base, Dtype::bf16, 20);
  const Bytes payload = encoded(Dtype::bf16, target, &base, 1);
  Bytes out(target.size());
  // By value: in an allocation of its own, a sanitizer sees a read past the end.
  const auto verdict = [&](Bytes exact, std::size_t size) {  // NOLINT(performance-unnecessary-value-param)
    return decode(exact.data(), exact.size(), base.data(), out.data(), size, 1);
  };
  for (std::size_t cut = 0; cut < payload.size(); cut += 1 + cut / 16) {
    const Status status =
        verdict(Bytes(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(cut)), out.size());
    CHECK(status.code == Code::truncated || status.code == Code::corrupt);
    CHECK(status.position <= cut);
  }
  CHECK(verdict(payload, out.size() - 64).code == Code::corrupt);
  CHECK(!decode(payload.data(), payload.size(), nullptr, out.data(), out.size(), 1).ok());
  Bytes newer = payload;
  newer[0] = 0xFF;
  CHECK(verdict(newer, out.size()).code == Code::unsupported);
}

void diff_counts_what_changed() {
  const Bytes base = make(Kind::weights, 2000, 3);
  Bytes target = base;
  const std::uint16_t one = 0x3F80;
  const std::uint16_t above = 0x3F82;
  std::memcpy(target.data() + 100, &above, 2);
  Bytes from = base;
  std::memcpy(from.data() + 100, &one, 2);
  DiffStats stats;
  CHECK(diff(Dtype::bf16, from.data(), target.data(), target.size(), 2, &stats).ok());
  CHECK(stats.elements == 1000 && stats.changed == 1 && stats.max_ulp == 2 && stats.sum_ulp == 2.0);
}

}  // namespace

int main() {
  std::vector<Bytes> frames[kDtypeCount];
  bool first = true;
  on_every_isa([&] {
    for (unsigned number = 0; number < kDtypeCount; ++number) {
      round_trips(static_cast<Dtype>(number), frames[number], first);
    }
    first = false;
    damage_is_refused();
    diff_counts_what_changed();
  });
  return finish();
}

// Low-rank prediction on a device gives the core's bits: all types and roundings, windows that begin and end anywhere,
// odd shapes, values that are not finite.
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/low_rank.h"

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
};

// Numbers of moderate size, and with `odd` now and then any bits at all.
Bytes numbers(Dtype dtype, std::size_t count, bool odd, Random& random) {
  const std::size_t width = element_size(dtype);
  Bytes bytes(count * width);
  for (std::size_t i = 0; i < count; ++i) {
    const float value = (static_cast<float>(random.next() % 2000) - 1000) / 700;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    if (dtype == Dtype::bf16) bits >>= 16;
    if (dtype == Dtype::f16) bits = 0x3000 + random.next() % 0x1000 + (random.next() % 2 << 15);
    if (dtype == Dtype::i16 || dtype == Dtype::i8 || (odd && random.next() % 50 == 0)) bits = random.next() << 1;
    std::memcpy(&bytes[i * width], &bits, width);
  }
  return bytes;
}

void same_bits(Dtype dtype, Dtype factors, MergeRounding rounding, std::size_t rows, std::size_t columns,
               std::size_t rank, bool odd, std::uint64_t seed) {
  Random random{seed};
  const Bytes a = numbers(factors, rank * columns, odd, random);
  const Bytes b = numbers(factors, rows * rank, odd, random);
  const Bytes base = numbers(dtype, rows * columns, odd, random);
  const LowRank recipe{dtype,
                       rows,
                       columns,
                       rank,
                       factors,
                       factors,
                       a.data(),
                       a.size(),
                       b.data(),
                       b.size(),
                       0.37F + 1e-3F * static_cast<float>(seed % 7),
                       rounding};
  const std::size_t width = element_size(dtype);
  const std::size_t begin = random.next() % (rows * columns);
  const std::size_t count = 1 + random.next() % (rows * columns - begin);
  for (const bool whole : {true, false}) {
    const std::size_t from = whole ? 0 : begin;
    const std::size_t elements = whole ? rows * columns : count;
    Bytes expected(elements * width);
    CHECK(apply_low_rank(recipe, base.data() + from * width, from, elements, expected.data(), 1).ok());
    Bytes out(elements * width + 1, 0x77);
    CHECK(cuda_apply_low_rank(recipe, base.data() + from * width, from, elements, out.data(), nullptr).ok());
    CHECK(std::memcmp(out.data(), expected.data(), expected.size()) == 0);
    CHECK(out.back() == 0x77);
    // In place, off a round address.
    Bytes place(1 + elements * width);
    std::memcpy(place.data() + 1, base.data() + from * width, elements * width);
    CHECK(cuda_apply_low_rank(recipe, place.data() + 1, from, elements, place.data() + 1, nullptr).ok());
    CHECK(std::memcmp(place.data() + 1, expected.data(), expected.size()) == 0);
  }
}

}  // namespace

int main() {
  std::uint64_t seed = 1;
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
    for (const Dtype factors : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i16, Dtype::i8}) {
      for (const auto rounding : {MergeRounding::once, MergeRounding::delta, MergeRounding::steps}) {
        same_bits(dtype, factors, rounding, 7, 90, 5, false, ++seed);
        same_bits(dtype, factors, rounding, 70, 33, 17, true, ++seed);
      }
    }
  }
  same_bits(Dtype::bf16, Dtype::bf16, MergeRounding::once, 1, 1, 1, false, ++seed);
  same_bits(Dtype::bf16, Dtype::f32, MergeRounding::once, 130, 200, 64, false, ++seed);
  LowRank wrong{};
  wrong.dtype = Dtype::u8;
  CHECK(!cuda_apply_low_rank(wrong, nullptr, 0, 1, nullptr, nullptr).ok());
  return finish();
}

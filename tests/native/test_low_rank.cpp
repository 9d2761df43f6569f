// Every instruction set predicts as the portable one does, in allocations that end with the data: a sanitizer sees a
// read past them. Any bits: NaNs, infinities and subnormals too.
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "check.h"
#include "textnlp_fast/low_rank.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint64_t state = 5;

Bytes random_bytes(std::size_t size, bool tame) {
  Bytes data(size);
  for (std::size_t at = 0; at < size; ++at) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    data[at] = static_cast<std::uint8_t>(state >> 56);
    // Floats around one in most places: what adds up and is rounded.
    if (tame && at % 4 == 3) data[at] = static_cast<std::uint8_t>((data[at] & 0x80) | 0x3f);
  }
  return data;
}

void one_shape(Dtype dtype, Dtype factor, std::size_t rows, std::size_t columns, std::size_t rank, bool tame) {
  const Bytes a = random_bytes(rank * columns * element_size(factor), tame);
  const Bytes b = random_bytes(rows * rank * element_size(factor), tame);
  const Bytes base = random_bytes(rows * columns * element_size(dtype), tame);
  for (unsigned rounding = 0; rounding < 3; ++rounding) {
    const LowRank recipe = {dtype,    rows,     columns,  rank,     factor, factor,
                            a.data(), a.size(), b.data(), b.size(), 0.37F,  static_cast<MergeRounding>(rounding)};
    CHECK(force_isa("portable"));
    Bytes expected(base.size());
    CHECK(apply_low_rank(recipe, base.data(), 0, rows * columns, expected.data(), 1).ok());
    on_every_isa([&] {
      const std::unique_ptr<std::uint8_t[]> out(new std::uint8_t[base.size()]);
      CHECK(apply_low_rank(recipe, base.data(), 0, rows * columns, out.get(), 3).ok());
      CHECK(std::memcmp(out.get(), expected.data(), base.size()) == 0);
      // The second half alone, in place.
      const std::size_t begin = rows * columns / 2;
      const std::size_t at = begin * element_size(dtype);
      Bytes part(base.begin() + static_cast<std::ptrdiff_t>(at), base.end());
      CHECK(apply_low_rank(recipe, part.data(), begin, rows * columns - begin, part.data(), 1).ok());
      CHECK(std::memcmp(part.data(), expected.data() + at, part.size()) == 0);
    });
  }
}

}  // namespace

int main() {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
    for (const Dtype factor : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i16, Dtype::i8}) {
      for (const bool tame : {true, false}) {
        one_shape(dtype, factor, 3, 1, 1, tame);
        one_shape(dtype, factor, 5, 63, 3, tame);
        one_shape(dtype, factor, 2, 129, 16, tame);
        one_shape(dtype, factor, 9, 777, 8, tame);
      }
    }
  }
  // Wider than a panel at a high rank, and more rows than a piece has.
  one_shape(Dtype::bf16, Dtype::bf16, 40, 300, 200, true);
  one_shape(Dtype::bf16, Dtype::i8, 700, 100, 64, true);
  // Sizes that fit, of a factor that no reader holds.
  const std::uint8_t byte = 0;
  const LowRank huge = {Dtype::bf16,
                        1,
                        (kMaxFactorElements >> 4) + 1,
                        16,
                        Dtype::i8,
                        Dtype::i8,
                        &byte,
                        kMaxFactorElements + 16,
                        &byte,
                        16,
                        1.0F,
                        MergeRounding::once};
  CHECK(apply_low_rank(huge, nullptr, 0, 0, nullptr, 1).code == Code::invalid_argument);
  return finish();
}

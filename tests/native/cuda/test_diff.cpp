// Statistics of changes on a device equal the core's, for pairs of every type, size and alignment in one call.
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "textnlp_fast/codec.h"
#include "textnlp_fast/cuda.h"

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
  std::uint32_t below(std::uint32_t bound) { return next() % bound; }
};

struct Pair {
  Bytes a, b;
  std::size_t shift;
  std::size_t size;
  Dtype dtype;
};

Pair make(Dtype dtype, std::size_t elements, unsigned every, std::uint64_t seed) {
  Random random{seed};
  Pair pair;
  pair.shift = random.below(2) == 0 ? 0 : random.below(9);
  pair.size = elements * element_size(dtype);
  pair.dtype = dtype;
  pair.a.resize(pair.shift + pair.size);
  for (auto& byte : pair.a) byte = static_cast<std::uint8_t>(random.next());
  pair.b = pair.a;
  for (std::size_t i = pair.shift; i < pair.b.size(); ++i) {
    if (every != 0 && random.below(every) == 0) pair.b[i] = static_cast<std::uint8_t>(random.next());
  }
  return pair;
}

void all_in_one_call() {
  std::vector<Pair> pairs;
  std::uint64_t seed = 0;
  for (unsigned number = 0; number < kDtypeCount; ++number) {
    const auto dtype = static_cast<Dtype>(number);
    for (const std::size_t elements : {std::size_t{0}, std::size_t{1}, std::size_t{31}, std::size_t{5000}}) {
      for (const unsigned every : {0u, 1u, 40u}) pairs.push_back(make(dtype, elements, every, ++seed));
    }
  }
  // Several pieces; sums that pass 64 bits.
  pairs.push_back(make(Dtype::bf16, 70000, 9, ++seed));
  pairs.push_back(make(Dtype::u64, 20000, 1, ++seed));
  std::vector<DevicePair> given;
  given.reserve(pairs.size());
  for (const Pair& pair : pairs) {
    given.push_back({pair.a.data() + pair.shift, pair.b.data() + pair.shift, pair.size, pair.dtype});
  }
  std::vector<std::uint64_t> workspace(cuda_diff_workspace(given.size()) / 8 + 3);
  auto* const at = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 15) / 16 * 16);
  std::vector<DeviceDiff> found(given.size(), DeviceDiff{9, 9, 9, 9});
  CHECK(cuda_diff(given.data(), given.size(), at, cuda_diff_workspace(given.size()), found.data(), nullptr).ok());
  for (std::size_t n = 0; n < pairs.size(); ++n) {
    DiffStats expected;
    CHECK(diff(pairs[n].dtype, given[n].a_dev, given[n].b_dev, pairs[n].size, 1, &expected).ok());
    CHECK(found[n].changed == expected.changed);
    CHECK(found[n].max_ulp == expected.max_ulp);
    const auto sum = static_cast<unsigned __int128>(found[n].sum_high) << 64 | found[n].sum_low;
    CHECK(static_cast<double>(sum) == expected.sum_ulp);
  }
  CHECK(found.back().sum_high != 0);
}

void refuses_a_small_workspace() {
  std::uint64_t workspace[2];
  DevicePair pair{};
  DeviceDiff out{};
  CHECK(!cuda_diff(&pair, 1, workspace, sizeof workspace, &out, nullptr).ok());
  CHECK(cuda_diff(&pair, 0, workspace, cuda_diff_workspace(0), &out, nullptr).ok() ||
        reinterpret_cast<std::uintptr_t>(workspace) % 16 != 0);
}

}  // namespace

int main() {
  all_in_one_call();
  refuses_a_small_workspace();
  return finish();
}

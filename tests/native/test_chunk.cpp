// Every instruction set cuts as the portable one does, in allocations that end with the data: a sanitizer sees a read
// past them. From one stretch to more stretches than lanes, so that lanes run out of work at every distance from the
// end; on one thread and on three.
#include <cstdint>
#include <memory>
#include <vector>

#include "check.h"
#include "textnlp_fast/chunk.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

using Ends = std::vector<std::uint64_t>;

Ends cut(const std::uint8_t* data, std::size_t size, unsigned threads) {
  Ends ends(max_chunks(size));
  std::size_t count = 0;
  CHECK(chunk_boundaries(data, size, threads, ends.data(), ends.size(), &count).ok());
  ends.resize(count);
  return ends;
}

}  // namespace

int main() {
  std::uint64_t state = 3;
  for (std::size_t size = 1; size < 900'000; size += 1 + size / 5) {
    const std::unique_ptr<std::uint8_t[]> data(new std::uint8_t[size]);
    for (std::size_t at = 0; at < size; ++at) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      data[at] = static_cast<std::uint8_t>(state >> 56);
    }
    CHECK(force_isa("portable"));
    const Ends expected = cut(data.get(), size, 1);
    CHECK(!expected.empty() && expected.back() == size);
    on_every_isa([&] {
      CHECK(cut(data.get(), size, 1) == expected);
      CHECK(cut(data.get(), size, 3) == expected);
    });
  }
  return finish();
}

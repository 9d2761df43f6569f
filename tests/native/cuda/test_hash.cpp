// BLAKE3 on a device equals the core's: every size around a border of blocks, chunks, groups and pieces, many spans in
// one call, at any alignment.
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/hash.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes noise(std::size_t size) {
  Bytes bytes(size);
  std::uint64_t state = 88172645463325252U;
  for (auto& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<std::uint8_t>(state >> 32);
  }
  return bytes;
}

void hash_and_compare(const std::vector<DeviceSpan>& spans, std::size_t shift) {
  std::uint64_t total = 0;
  for (const DeviceSpan& span : spans) total += span.size;
  const std::size_t size = cuda_blake3_workspace(spans.size(), total);
  std::vector<std::uint64_t> workspace(size / 8 + 3, 0xa5a5a5a5a5a5a5a5U);
  auto* const at = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 15) / 16 * 16);
  Bytes digests(shift + spans.size() * kDigestBytes + 4, 0x5a);
  CHECK(cuda_blake3(spans.data(), spans.size(), total, at, size, digests.data() + shift, nullptr).ok());
  for (std::size_t n = 0; n < spans.size(); ++n) {
    const Digest expected = blake3(spans[n].data_dev, spans[n].size, 1);
    const bool same = std::memcmp(digests.data() + shift + n * kDigestBytes, expected.data(), kDigestBytes) == 0;
    if (!CHECK(same))
      std::fprintf(stderr, "  span %zu of %llu bytes\n", n, static_cast<unsigned long long>(spans[n].size));
  }
  for (std::size_t i = digests.size() - 4; i < digests.size(); ++i) CHECK(digests[i] == 0x5a);
}

void borders() {
  const Bytes data = noise((std::size_t{3} << 18) + 4096);
  std::vector<DeviceSpan> spans;
  constexpr std::uint64_t kBorders[] = {0,     1,      63,     64,     65,     1023,   1024,  1025,  2048,
                                        3072,  5000,   7168,   8191,   8192,   8193,   16384, 16385, 24576,
                                        65536, 262143, 262144, 262145, 270336, 524288, 786431};
  std::size_t offset = 0;
  for (const std::uint64_t size : kBorders) {
    spans.push_back({data.data() + offset % 37, size});
    offset += 5;
  }
  hash_and_compare(spans, 0);
  hash_and_compare(spans, 3);
}

void one_of_each_small_size() {
  const Bytes data = noise(20000);
  std::vector<DeviceSpan> spans;
  for (std::uint64_t size = 0; size < 9300; size += 97) spans.push_back({data.data() + size % 16, size});
  hash_and_compare(spans, 0);
}

void wrong_calls() {
  std::uint64_t workspace[4];
  DeviceSpan span{nullptr, 0};
  std::uint8_t digest[32];
  CHECK(!cuda_blake3(&span, 1, 0, workspace, sizeof workspace, digest, nullptr).ok());
  hash_and_compare({}, 0);
  hash_and_compare({{nullptr, 0}}, 0);
  // More bytes than were announced: nothing outside of the workspace is touched.
  const Bytes data = noise(100000);
  span = {data.data(), data.size()};
  const std::size_t size = cuda_blake3_workspace(1, 10);
  std::vector<std::uint64_t> room(size / 8 + 3 + 8, 0xa5a5a5a5a5a5a5a5U);
  auto* const at = reinterpret_cast<std::uint8_t*>((reinterpret_cast<std::uintptr_t>(room.data()) + 15) / 16 * 16);
  CHECK(cuda_blake3(&span, 1, 10, at, size, digest, nullptr).ok());
  for (unsigned i = 0; i < 16; ++i) CHECK(at[size + i] == 0xa5);
}

}  // namespace

int main() {
  borders();
  one_of_each_small_size();
  wrong_calls();
  return finish();
}

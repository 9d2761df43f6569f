// Chunks of device memory equal the core's: every size around a border of words, chunks and segments, many spans in one
// call, at any alignment; content that is cut nowhere and content that may be cut everywhere.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "check.h"
#include "chunk/gear_table.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/cuda.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::uint8_t kRubbish = 0xa5;
constexpr std::size_t kSegment = std::size_t{4} << 20;

Bytes noise(std::size_t size, std::uint64_t seed) {
  Bytes bytes(size);
  std::uint64_t state = 88172645463325252U + seed;
  for (auto& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<std::uint8_t>(state >> 32);
  }
  return bytes;
}

// 64 bytes behind which a chunk may end.
Bytes ending() {
  const Bytes data = noise(1 << 20, 7);
  std::uint64_t hash = 0;
  for (std::size_t at = 0; at < data.size(); ++at) {
    hash = (hash << 1) + kGear[data[at]];
    if (at >= 64 && hash < kCandidateBelow) return {data.data() + at - 63, data.data() + at + 1};
  }
  return {};
}

// Such an end in every 64 bytes.
Bytes dense(std::size_t size) {
  const Bytes part = ending();
  Bytes bytes;
  while (bytes.size() < size) bytes.insert(bytes.end(), part.begin(), part.end());
  bytes.resize(size);
  return bytes;
}

std::size_t places_of(std::uint64_t size) { return (size + kMinChunkBytes - 1) / kMinChunkBytes; }

void cut_and_compare(const std::vector<DeviceSpan>& spans) {
  std::uint64_t total = 0;
  std::size_t places = 0;
  for (const DeviceSpan& span : spans) {
    total += span.size;
    places += places_of(span.size);
  }
  const std::size_t size = cuda_chunk_workspace(spans.size(), total);
  Bytes workspace(size + 32, kRubbish);
  auto* const at = reinterpret_cast<std::uint8_t*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 15) / 16 * 16);
  std::vector<std::uint64_t> ends(places + 1, 77);
  std::vector<std::uint64_t> counts(spans.size() + 1, 77);
  CHECK(cuda_chunk(spans.data(), spans.size(), total, at, size, ends.data(), counts.data(), nullptr).ok());
  CHECK(ends.back() == 77);
  CHECK(counts.back() == 77);
  CHECK(at[size] == kRubbish);
  const std::uint64_t* found = ends.data();
  for (std::size_t n = 0; n < spans.size(); ++n) {
    std::vector<std::uint64_t> expected(max_chunks(spans[n].size));
    std::size_t count = 0;
    CHECK(chunk_boundaries(spans[n].data_dev, spans[n].size, 1, expected.data(), expected.size(), &count).ok());
    const bool same = counts[n] == count && std::memcmp(found, expected.data(), count * sizeof *found) == 0;
    if (!CHECK(same)) {
      std::fprintf(stderr, "  span %zu of %llu bytes: %llu chunks, not %zu\n", n,
                   static_cast<unsigned long long>(spans[n].size), static_cast<unsigned long long>(counts[n]), count);
    }
    found += places_of(spans[n].size);
  }
}

void borders() {
  constexpr std::uint64_t kBorders[] = {0,    1,    31,   32,    63,    64,    1023,   1024,   1025,   8127,   8128,
                                        8191, 8192, 8193, 16384, 98304, 98305, 131071, 131072, 131073, 262144, 262145};
  for (const Bytes& data : {noise(300000, 1), Bytes(300000, 0), dense(300000)}) {
    std::vector<DeviceSpan> spans;
    for (const std::uint64_t size : kBorders) spans.push_back({data.data() + spans.size() * 5 % 37, size});
    cut_and_compare(spans);
  }
  cut_and_compare({});
  cut_and_compare({{nullptr, 0}, {nullptr, 0}});
}

// The last bytes of a chunk at the least and the most it may have, and one beside.
void minimum_and_maximum() {
  const Bytes end = ending();
  for (const std::size_t where : {kMinChunkBytes - 1, kMinChunkBytes, kMinChunkBytes + 1, kMaxChunkBytes - 1,
                                  kMaxChunkBytes, kMaxChunkBytes + 1}) {
    Bytes data(200000, 0);
    std::memcpy(data.data() + where - end.size(), end.data(), end.size());
    for (const std::size_t shift : {0, 1, 13}) cut_and_compare({{data.data() + shift, data.size() - shift}});
  }
}

// Guesses meet the true cuts at once, late, or never.
void segments() {
  const Bytes random = noise(2 * kSegment + 12345, 2);
  cut_and_compare({{random.data(), random.size()}, {random.data() + 1, kSegment}, {random.data(), kSegment + 1}});
  Bytes zeros(2 * kSegment + 12345, 0);
  const Bytes end = ending();
  // One cut off the grid of the largest chunks, and no other.
  std::memcpy(zeros.data() + 50001, end.data(), end.size());
  cut_and_compare({{zeros.data(), zeros.size()}});
  const Bytes everywhere = dense(kSegment + 100000);
  cut_and_compare({{everywhere.data() + 3, everywhere.size() - 3}});
}

void wrong_calls() {
  const Bytes data = noise(100000, 3);
  const DeviceSpan span{data.data(), data.size()};
  std::vector<std::uint64_t> ends(20);
  std::uint64_t counts = 77;
  const std::size_t size = cuda_chunk_workspace(1, data.size());
  Bytes workspace(size + 64, kRubbish);
  auto* const at = reinterpret_cast<std::uint8_t*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 15) / 16 * 16);
  CHECK(!cuda_chunk(&span, 1, data.size(), at, size - 1, ends.data(), &counts, nullptr).ok());
  CHECK(!cuda_chunk(&span, 1, data.size(), at + 1, size, ends.data(), &counts, nullptr).ok());
  // More bytes than were announced: nothing outside of the workspace is touched, and the span has no chunks.
  const std::size_t little = cuda_chunk_workspace(1, 10);
  CHECK(cuda_chunk(&span, 1, 10, at, little, ends.data(), &counts, nullptr).ok());
  CHECK(counts == 0);
  for (std::size_t i = little; i < size; ++i) CHECK(at[i] == kRubbish);
  CHECK(cuda_chunk_now(&span, 1, ends.data(), &counts, nullptr).ok());
  CHECK(counts > 0 && ends[counts - 1] == data.size());
}

}  // namespace

int main() {
  borders();
  minimum_and_maximum();
  segments();
  wrong_calls();
  return finish();
}

// The hash of bytes fed in any pieces is the hash of the whole, on every instruction set; so is the Xet file hash of
// any chunks, chunk ends that do not rise are refused, and spans hashed together are hashed as if alone.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "expect.h"
#include "textnlp_fast/cpu.h"
#include "textnlp_fast/hash.h"

namespace {

using namespace textnlp_fast;

Digest in_pieces(const std::uint8_t* data, std::size_t size, std::size_t step) {
  Blake3 hash;
  for (std::size_t at = 0; at < size; at += step) {
    hash.update(data + at, std::min(step, size - at), 1);
    if (at % 3 == 0) (void)hash.digest();  // looking does not disturb
  }
  return hash.digest();
}

// Takes the first bytes as chunk ends, in whatever order they come.
void xet(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint64_t> ends;
  for (std::size_t index = 0; index < std::min<std::size_t>(size, 12); ++index) ends.push_back(data[index] * 16ULL);
  bool rising = true;
  for (std::size_t index = 0; index < ends.size(); ++index) {
    rising = rising && ends[index] > (index == 0 ? 0 : ends[index - 1]) && ends[index] <= size;
  }
  XetHasher hasher;
  const Digest empty = hasher.digest();
  EXPECT(hasher.add(data, size, ends.data(), ends.size(), 1).ok() == rising);
  EXPECT(rising || hasher.digest() == empty);
}

// Spans of lengths that the input chooses, empty ones among them.
void spans(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint64_t> ends;
  std::uint64_t at = 0;
  for (std::size_t index = 0; index < 40; ++index) {
    at += data[index % size] * (index % 3 == 0 ? 33ULL : 1ULL);
    ends.push_back(std::min<std::uint64_t>(at, size));
  }
  std::vector<Digest> digests(ends.size());
  EXPECT(blake3_spans(data, size, ends.data(), ends.size(), digests.data(), 1).ok());
  for (std::size_t index = 0; index < ends.size(); ++index) {
    const std::uint64_t begin = index == 0 ? 0 : ends[index - 1];
    EXPECT(digests[index] == blake3(data + begin, static_cast<std::size_t>(ends[index] - begin), 1));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t step = 1 + data[0] * std::size_t{17};
  // Long inputs cost a fuzzer too much to find: repeat what it found past a few SIMD groups of chunks.
  std::vector<std::uint8_t> bytes;
  for (unsigned copy = 0; copy <= data[1] % 64; ++copy) bytes.insert(bytes.end(), data, data + size);
  bytes.shrink_to_fit();
  const char* names[8];
  const unsigned count = std::min(available_isas(names, 8), 8U);
  Digest expected{};
  for (unsigned isa = 0; isa < count; ++isa) {
    EXPECT(force_isa(names[isa]));
    const Digest whole = blake3(bytes.data(), bytes.size(), 1);
    if (isa == 0) expected = whole;
    EXPECT(whole == expected);
    EXPECT(in_pieces(bytes.data(), bytes.size(), step) == expected);
    spans(bytes.data(), bytes.size());
    xet(bytes.data(), bytes.size());
  }
  return 0;
}

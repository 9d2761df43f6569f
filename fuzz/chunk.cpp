// Chunk boundaries of any bytes, fed in any pieces, on any instruction set, are those of the sequential definition,
// which stands here once more in its shortest form.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "chunk/gear_table.h"
#include "expect.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/cpu.h"

namespace {

using namespace textnlp_fast;
using Ends = std::vector<std::uint64_t>;

constexpr std::size_t kUnhashed = kMinChunkBytes - 65;

Ends by_definition(const std::vector<std::uint8_t>& data) {
  Ends ends;
  std::size_t begin = 0;
  while (begin < data.size()) {
    const std::size_t last = std::min(data.size(), begin + kMaxChunkBytes);
    std::size_t end = std::min(last, begin + kUnhashed);
    std::uint64_t hash = 0;
    bool found = false;
    while (end < last && !found) {
      hash = (hash << 1) + kGear[data[end]];
      ++end;
      found = end - begin >= kMinChunkBytes && hash >> 48 == 0;
    }
    ends.push_back(end);
    begin = end;
  }
  return ends;
}

Ends one_shot(const std::vector<std::uint8_t>& data) {
  Ends ends(max_chunks(data.size()));
  std::size_t count = 0;
  EXPECT(chunk_boundaries(data.data(), data.size(), 1, ends.data(), ends.size(), &count).ok());
  ends.resize(count);
  return ends;
}

Ends in_pieces(const std::vector<std::uint8_t>& data, std::size_t step) {
  Chunker chunker;
  Ends ends;
  for (std::size_t at = 0; at < data.size(); at += step) {
    const std::size_t size = std::min(step, data.size() - at);
    Ends found(max_chunks(size));
    std::size_t count = 0;
    EXPECT(chunker.feed(data.data() + at, size, 1, found.data(), found.size(), &count).ok());
    ends.insert(ends.end(), found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count));
  }
  std::uint64_t last = 0;
  if (chunker.finish(&last)) ends.push_back(last);
  return ends;
}

}  // namespace

// Three bytes of settings; the rest repeats, with a shift, up to a few maximal chunks.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
  if (size < 4) return 0;
  const std::size_t step = 1 + std::size_t{input[0]} * input[1];
  const std::size_t wanted = std::size_t{input[2]} << 11;
  std::vector<std::uint8_t> data(wanted);
  std::uint64_t state = input[3];
  for (std::size_t index = 0; index < wanted; ++index) {
    const std::uint8_t drawn = input[3 + index % (size - 3)];
    state = state * 6364136223846793005U + drawn;
    data[index] = (drawn & 1) != 0 ? static_cast<std::uint8_t>(state >> 56) : drawn;
  }
  const Ends expected = by_definition(data);
  const char* names[8];
  const unsigned count = std::min(available_isas(names, 8), 8U);
  for (unsigned isa = 0; isa < count; ++isa) {
    EXPECT(force_isa(names[isa]));
    EXPECT(one_shot(data) == expected);
    EXPECT(in_pieces(data, std::max<std::size_t>(step, wanted / 64)) == expected);
  }
  return 0;
}

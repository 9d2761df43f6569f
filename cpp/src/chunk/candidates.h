// Pass one of chunking: the positions at which the hash of the last 64 bytes allows an end.
#pragma once
#include <cstddef>
#include <cstdint>

#include "chunk/chunk_kernels.h"

namespace textnlp_fast {

inline constexpr std::size_t kNoPosition = ~std::size_t{0};

// The first position p in [from, end) whose hash over data[p-63 .. p] has its top 16 bits zero; kNoPosition if none.
// Needs from >= 63.
std::size_t first_candidate(const std::uint8_t* data, std::size_t from, std::size_t end) noexcept;

// A buffer cut into stretches of equal size (the last may be shorter). After `find_candidates`, slots[s * per_stretch
// ..] holds the candidates of stretch s, ascending, counts[s] of them. What lies less than kMinChunkBytes behind a
// candidate in its own stretch was not looked at, nor were the first kMinChunkBytes - 1 bytes of the buffer.
struct Stretches {
  const std::uint8_t* data;
  std::size_t size;
  std::size_t stretch_bytes;
  std::size_t per_stretch;
  std::uint64_t* slots;
  std::uint32_t* counts;

  [[nodiscard]] std::size_t begin(std::size_t stretch) const noexcept { return stretch * stretch_bytes; }
  [[nodiscard]] std::size_t end(std::size_t stretch) const noexcept {
    const std::size_t end = (stretch + 1) * stretch_bytes;
    return end < size ? end : size;
  }
};

// Fills the stretches first <= s < last.
void find_candidates(const ChunkKernels& kernels, const Stretches& stretches, std::size_t first,
                     std::size_t last) noexcept;

}  // namespace textnlp_fast

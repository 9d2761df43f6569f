// The chunk kernels that differ by instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {

// Bytes of each lane that a kernel walks before it looks up; also the reach of the Gear hash.
inline constexpr std::size_t kGearBlock = 64;
inline constexpr unsigned kGearMaxLanes = 16;

// Several stretches of one buffer, hashed side by side. A lane forgets where it came from after kGearBlock bytes, so
// its pointer may be moved between calls: the first block after a move gives answers that mean nothing.
struct GearLanes {
  const std::uint8_t* at[kGearMaxLanes];
  // Kernel's own: zero it once; what it means differs by kernel.
  alignas(64) std::int32_t state[9][kGearMaxLanes];
};

struct ChunkKernels {
  const char* name;
  unsigned lanes;
  // Walks up to `blocks` blocks of kGearBlock bytes in every lane and advances `at`. Returns the count walked: it stops
  // after the first block with suspects. Then bit l of suspects[q] says that one of the bytes 4q .. 4q+3 of lane l's
  // last block may end a chunk. A byte whose hash has its top 16 bits zero is always suspected; so are a few others.
  std::size_t (*walk)(GearLanes* lanes, std::size_t blocks, std::uint16_t* suspects) noexcept;
};

extern const ChunkKernels chunk_kernels_portable;
extern const ChunkKernels chunk_kernels_avx2;
extern const ChunkKernels chunk_kernels_avx512;
extern const ChunkKernels chunk_kernels_neon;

}  // namespace textnlp_fast

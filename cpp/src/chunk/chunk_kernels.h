// The chunk kernels that differ by instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {

// Bytes of each lane that a kernel walks before it looks up; also the reach of the Gear hash.
inline constexpr std::size_t kGearBlock = 64;
inline constexpr unsigned kGearParts = 4;
inline constexpr std::size_t kGearPart = kGearBlock / kGearParts;
inline constexpr unsigned kGearMaxLanes = 16;
inline constexpr std::size_t kGearMaxBlocks = 16;

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
  // Walks `blocks` blocks of kGearBlock bytes in every lane, at most kGearMaxBlocks, and advances `at`. Bit l of
  // suspects[b * kGearParts + p] then says that one of the bytes of part p (kGearPart bytes) of lane l's block b may
  // end a chunk: always where the hash has its top 16 bits zero, and in a few other places.
  void (*walk)(GearLanes* lanes, std::size_t blocks, std::uint16_t* suspects) noexcept;
};

extern const ChunkKernels chunk_kernels_portable;
extern const ChunkKernels chunk_kernels_avx2;
extern const ChunkKernels chunk_kernels_avx512;
extern const ChunkKernels chunk_kernels_neon;

}  // namespace textnlp_fast

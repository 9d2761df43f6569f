// The chunk kernels that differ by instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {

// Bytes of each lane that a kernel walks before it looks up; also the reach of the Gear hash.
inline constexpr std::size_t kGearBlock = 64;
inline constexpr unsigned kGearParts = 4;
inline constexpr std::size_t kGearPart = kGearBlock / kGearParts;
inline constexpr unsigned kGearMaxLanes = 17;
inline constexpr std::size_t kGearMaxBlocks = 16;
// A fast lane walks so many times as far as the others: its blocks and parts are that much larger.
inline constexpr std::size_t kGearFastRate = 6;

// Several stretches of one buffer, hashed side by side. A lane forgets where it came from after 64 bytes, so its
// pointer may be moved between calls: the first block after a move gives answers that mean nothing.
struct GearLanes {
  const std::uint8_t* at[kGearMaxLanes];
  // Kernel's own: zero it once; what it means differs by kernel.
  alignas(64) std::int32_t state[9][16];
  std::uint64_t fast_hash;
};

struct ChunkKernels {
  const char* name;
  unsigned lanes;
  // Whether the last lane is a fast one.
  bool has_fast_lane;
  // Walks `blocks` blocks in every lane, at most kGearMaxBlocks, and advances `at`. Bit l of
  // suspects[b * kGearParts + p] then says that a byte of part p of lane l's block b, or the last byte before that
  // part, may end a chunk: one of the two parts says so for every byte whose hash has its top 16 bits zero (this
  // call's, for its last byte), and parts are named in a few other places.
  void (*walk)(GearLanes* lanes, std::size_t blocks, std::uint32_t* suspects) noexcept;

  [[nodiscard]] std::size_t rate(unsigned lane) const noexcept {
    return has_fast_lane && lane == lanes - 1 ? kGearFastRate : 1;
  }
};

extern const ChunkKernels chunk_kernels_portable;
extern const ChunkKernels chunk_kernels_avx2;
extern const ChunkKernels chunk_kernels_avx512;
extern const ChunkKernels chunk_kernels_neon;

}  // namespace textnlp_fast

// The hash kernels that differ by instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {

// What all inputs of one kernel call share. A BLAKE3 node is either a chunk (up to 16 blocks of 64 bytes) or a parent
// (one block: the chaining values of its children); the flags tell them apart.
struct HashNode {
  const std::uint32_t* key;   // 8 words each input starts from
  std::uint32_t flags;        // on every block
  std::uint32_t first_flags;  // on the first block as well
  std::uint32_t last_flags;   // on the last block as well
};

// One input of many: its 32 bytes go to `out`.
struct HashInput {
  const std::uint8_t* bytes;
  std::uint8_t* out;
  std::uint64_t counter;
  std::uint32_t size_bytes;  // 0 to 1024
  std::uint32_t last_flags;  // on its last block, besides those of the node
};

struct HashKernels {
  const char* name;

  // Hashes one input of `size_bytes` (0 to 1024) into the 32 bytes at `out`, which may overlap it.
  void (*hash_one)(const HashNode& node, const std::uint8_t* input, std::size_t size_bytes, std::uint64_t counter,
                   std::uint8_t* out) noexcept;

  // Hashes `count` inputs of any sizes and counters; those of equal size that stand together go fastest. Where all are
  // of equal size, no value is written before the inputs up to its own are read: its `out` may lie in one of them.
  void (*hash_each)(const HashNode& node, const HashInput* inputs, std::size_t count) noexcept;
};

extern const HashKernels hash_kernels_portable;
extern const HashKernels hash_kernels_avx2;
extern const HashKernels hash_kernels_avx512;
extern const HashKernels hash_kernels_neon;

}  // namespace textnlp_fast

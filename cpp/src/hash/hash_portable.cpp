// For processors without a file of their own: one input at a time, one word at a time.
#include <cstring>

#include "hash/compress.h"
#include "hash/hash_constants.h"
#include "hash/hash_kernels.h"

namespace textnlp_fast {
namespace {

void compress(std::uint32_t (&h)[8], const std::uint8_t* block, std::size_t block_bytes, std::uint64_t counter,
              std::uint32_t flags) noexcept {
  std::uint32_t m[16] = {};
  if (block_bytes > 0) std::memcpy(m, block, block_bytes);
  compress_words(h, m, static_cast<std::uint32_t>(block_bytes), counter, flags);
}

void hash_one(const HashNode& node, const std::uint8_t* input, std::size_t size_bytes, std::uint64_t counter,
              std::uint8_t* out) noexcept {
  std::uint32_t h[8];
  std::memcpy(h, node.key, sizeof h);
  std::uint32_t flags = node.flags | node.first_flags;
  for (; size_bytes > kBlockBytes; size_bytes -= kBlockBytes, input += kBlockBytes) {
    compress(h, input, kBlockBytes, counter, flags);
    flags = node.flags;
  }
  compress(h, input, size_bytes, counter, flags | node.last_flags);
  std::memcpy(out, h, sizeof h);
}

void hash_each(const HashNode& node, const HashInput* inputs, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const HashInput& input = inputs[i];
    hash_one({node.key, node.flags, node.first_flags, node.last_flags | input.last_flags}, input.bytes,
             input.size_bytes, input.counter, input.out);
  }
}

}  // namespace

const HashKernels hash_kernels_portable = {"portable", hash_one, hash_each};

}  // namespace textnlp_fast

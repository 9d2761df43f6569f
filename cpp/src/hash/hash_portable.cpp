// For processors without a file of their own: one input at a time, one word at a time.
#include <bit>
#include <cstring>

#include "hash/hash_constants.h"
#include "hash/hash_kernels.h"

namespace textnlp_fast {
namespace {

void quarter_round(std::uint32_t* v, int a, int b, int c, int d, std::uint32_t x, std::uint32_t y) noexcept {
  v[a] += v[b] + x;
  v[d] = std::rotr(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = std::rotr(v[b] ^ v[c], 12);
  v[a] += v[b] + y;
  v[d] = std::rotr(v[d] ^ v[a], 8);
  v[c] += v[d];
  v[b] = std::rotr(v[b] ^ v[c], 7);
}

void compress(std::uint32_t (&h)[8], const std::uint8_t* block, std::size_t block_bytes, std::uint64_t counter,
              std::uint32_t flags) noexcept {
  std::uint32_t m[16] = {};
  if (block_bytes > 0) std::memcpy(m, block, block_bytes);
  std::uint32_t v[16];
  std::memcpy(v, h, sizeof h);
  std::memcpy(v + 8, kInitial, 16);
  v[12] = static_cast<std::uint32_t>(counter);
  v[13] = static_cast<std::uint32_t>(counter >> 32);
  v[14] = static_cast<std::uint32_t>(block_bytes);
  v[15] = flags;
  for (const auto& order : kSchedule.word) {
    quarter_round(v, 0, 4, 8, 12, m[order[0]], m[order[1]]);
    quarter_round(v, 1, 5, 9, 13, m[order[2]], m[order[3]]);
    quarter_round(v, 2, 6, 10, 14, m[order[4]], m[order[5]]);
    quarter_round(v, 3, 7, 11, 15, m[order[6]], m[order[7]]);
    quarter_round(v, 0, 5, 10, 15, m[order[8]], m[order[9]]);
    quarter_round(v, 1, 6, 11, 12, m[order[10]], m[order[11]]);
    quarter_round(v, 2, 7, 8, 13, m[order[12]], m[order[13]]);
    quarter_round(v, 3, 4, 9, 14, m[order[14]], m[order[15]]);
  }
  for (int i = 0; i < 8; ++i) h[i] = v[i] ^ v[i + 8];
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

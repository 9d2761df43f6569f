// The base tensor that the decoder harness decodes against and the seeds are made against: low bytes at random, high
// bytes few, as trained weights have them. A function of the place alone, so both sides have the same bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace textnlp_fast::fuzz {

inline std::vector<std::uint8_t> base_pattern(std::size_t size_bytes) {
  std::vector<std::uint8_t> bytes(size_bytes);
  std::uint64_t state = 0x9E3779B97F4A7C15;
  for (std::size_t index = 0; index < size_bytes; ++index) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    const auto random = static_cast<std::uint8_t>(state >> 56);
    const bool high = index % 2 == 1;
    bytes[index] = high ? static_cast<std::uint8_t>((random & 0x80) | 0x3A | (random & 0x05)) : random;
  }
  return bytes;
}

}  // namespace textnlp_fast::fuzz

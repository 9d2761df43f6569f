// Numbers of the BLAKE3 specification (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020; sections 2.2 and 2.3).
// Everything has internal linkage: kernel files compiled for different processors include this.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {
namespace {

constexpr std::size_t kBlockBytes = 64;
constexpr std::size_t kChunkBytes = 1024;
constexpr std::size_t kChunkBlocks = kChunkBytes / kBlockBytes;
constexpr std::size_t kValueBytes = 32;  // a chaining value

enum HashFlag : std::uint32_t {
  kChunkStart = 1 << 0,
  kChunkEnd = 1 << 1,
  kParent = 1 << 2,
  kRoot = 1 << 3,
  kKeyed = 1 << 4,
  kDeriveKeyContext = 1 << 5,
  kDeriveKeyMaterial = 1 << 6,
};

// The first 32 bits of the fractional parts of the square roots of the first eight primes, as in SHA-256.
constexpr std::uint32_t kInitial[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                       0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

// kSchedule.word[r][i] is the message word that round r takes i-th: the specification's permutation applied r times.
struct Schedule {
  std::uint8_t word[7][16];
};

constexpr Schedule make_schedule() {
  constexpr std::uint8_t permutation[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
  Schedule schedule{};
  for (int i = 0; i < 16; ++i) schedule.word[0][i] = static_cast<std::uint8_t>(i);
  for (int round = 1; round < 7; ++round) {
    for (int i = 0; i < 16; ++i) schedule.word[round][i] = schedule.word[round - 1][permutation[i]];
  }
  return schedule;
}
constexpr Schedule kSchedule = make_schedule();

}  // namespace
}  // namespace textnlp_fast

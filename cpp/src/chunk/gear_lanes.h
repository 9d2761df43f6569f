// The Gear hash in general registers, for the kernels without a wide byte permute and the lanes that walk beside one.
// All of it has internal linkage: each kernel file compiles its own copy with its own flags.
#pragma once
#include <cstring>

#include "chunk/chunk_kernels.h"
#include "chunk/gear_table.h"

namespace textnlp_fast {
namespace {

// Two chains of additions hide each other's latency; more of them run out of registers.
inline constexpr unsigned kScalarLanes = 2;

// A branch that is never taken is cheaper than the arithmetic compilers put in its place: the barrier keeps it one.
[[gnu::always_inline]] inline void note(std::uint64_t hash, unsigned lane, std::uint32_t* mask) noexcept {
  if (__builtin_expect(hash < kCandidateBelow, 0)) {
    *mask |= 1U << lane;
    asm volatile("");
  }
}

// Four bytes of one lane. Returns the hash behind them.
[[gnu::always_inline]] inline std::uint64_t walk_four(std::uint64_t hash, const std::uint8_t* bytes, unsigned lane,
                                                      std::uint32_t* mask) noexcept {
  const std::uint64_t one = 2 * hash + kGear[bytes[0]];
  const std::uint64_t two = 2 * one + kGear[bytes[1]];
  const std::uint64_t three = 2 * two + kGear[bytes[2]];
  const std::uint64_t last = 2 * three + kGear[bytes[3]];
  note(one, lane, mask);
  note(two, lane, mask);
  note(three, lane, mask);
  note(last, lane, mask);
  return last;
}

[[maybe_unused]] static void walk_scalar_lanes(GearLanes* lanes, std::size_t blocks, std::uint32_t* suspects) noexcept {
  std::uint64_t hash[kScalarLanes];
  std::memcpy(hash, lanes->state, sizeof hash);
  const std::uint8_t* at[kScalarLanes];
  std::memcpy(at, lanes->at, sizeof at);  // NOLINT(bugprone-multi-level-implicit-pointer-conversion)
  for (std::size_t part = 0; part < blocks * kGearParts; ++part) {
    std::uint32_t mask = 0;
#pragma GCC unroll 4
    for (std::size_t four = 0; four < kGearPart; four += 4) {
#pragma GCC unroll 2
      for (unsigned lane = 0; lane < kScalarLanes; ++lane) {
        hash[lane] = walk_four(hash[lane], at[lane] + four, lane, &mask);
      }
    }
    for (const std::uint8_t*& bytes : at) bytes += kGearPart;
    suspects[part] = mask;
  }
  std::memcpy(lanes->at, at, sizeof at);  // NOLINT(bugprone-multi-level-implicit-pointer-conversion)
  std::memcpy(lanes->state, hash, sizeof hash);
}

}  // namespace
}  // namespace textnlp_fast

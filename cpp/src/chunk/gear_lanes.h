// The Gear hash of four stretches side by side in general registers, for the kernels without a wide byte permute. All
// of it has internal linkage: each kernel file compiles its own copy with its own flags.
#pragma once
#include <cstring>

#include "chunk/chunk_kernels.h"
#include "chunk/gear_table.h"

namespace textnlp_fast {
namespace {

inline constexpr unsigned kScalarLanes = 4;

// rows[r][byte] = kGear[byte] << r: four bytes in a row then cost one shift of the hash.
struct ShiftedGear {
  std::uint64_t rows[4][256];
};

constexpr ShiftedGear make_shifted_gear() {
  ShiftedGear shifted{};
  for (unsigned r = 0; r < 4; ++r) {
    for (unsigned byte = 0; byte < 256; ++byte) shifted.rows[r][byte] = kGear[byte] << r;
  }
  return shifted;
}

constexpr ShiftedGear kShifted = make_shifted_gear();

// A hash that is still to be shifted by up to three loses its top bits: 13 zeros are asked for instead of 16, which
// suspects a little more and misses nothing.
constexpr std::uint64_t kSuspectBelow = std::uint64_t{1} << 51;

// A branch that is never taken is cheaper than the arithmetic compilers put in its place: the barrier keeps it one.
[[gnu::always_inline]] inline void note(std::uint64_t hash, unsigned lane, std::uint32_t* mask) noexcept {
  if (__builtin_expect(hash < kSuspectBelow, 0)) {
    *mask |= 1U << lane;
    asm volatile("");
  }
}

// Four bytes of one lane. Returns the hash behind them.
[[gnu::always_inline]] inline std::uint64_t walk_four(std::uint64_t hash, const std::uint8_t* bytes, unsigned lane,
                                                      std::uint32_t* mask) noexcept {
  const std::uint64_t one = (hash << 4) + kShifted.rows[3][bytes[0]];
  const std::uint64_t two = one + kShifted.rows[2][bytes[1]];
  const std::uint64_t three = two + kShifted.rows[1][bytes[2]];
  const std::uint64_t last = three + kShifted.rows[0][bytes[3]];
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
  std::memset(suspects, 0, blocks * kGearParts * sizeof *suspects);
  for (std::size_t four = 0; four < blocks * kGearBlock; four += 4) {
#pragma GCC unroll 4
    for (unsigned lane = 0; lane < kScalarLanes; ++lane) {
      hash[lane] = walk_four(hash[lane], at[lane] + four, lane, suspects + four / kGearPart);
    }
  }
  for (unsigned lane = 0; lane < kScalarLanes; ++lane) lanes->at[lane] = at[lane] + blocks * kGearBlock;
  std::memcpy(lanes->state, hash, sizeof hash);
}

}  // namespace
}  // namespace textnlp_fast

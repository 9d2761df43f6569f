// Where a sparse frame changes. Elements are looked at in blocks. Small numbers of the base change often and are
// *listed*: all of them, if the block changes at all. The others, *cold*, change rarely; how rarely their exponent
// says, as a *hazard*: a number in proportion to the chance. A block tells how many of its cold elements changed, and
// then where, in units of summed hazard, so that a change costs what it should under the exponents and an element that
// stays costs nothing.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/chance.h"
#include "codec/codec_kernels.h"
#include "codec/pair_rans.h"

namespace textnlp_fast {

constexpr unsigned kHazardCodes = 24;
constexpr unsigned kHazardCodeBits = 5;

// The hazard of a code: 0 for code 0, then from 1 to 2048, two to an octave: 2^((code - 1) / 2), rounded.
TEXTNLP_FAST_HD inline std::uint16_t hazard_of(unsigned code) noexcept {
  if (code == 0) return 0;
  const unsigned octave = (code - 1) / 2;
  if (code % 2 != 0) return static_cast<std::uint16_t>(1u << octave);
  constexpr std::uint32_t kRoot = 46341;  // 2^15.5
  return static_cast<std::uint16_t>((kRoot + (1u << (14 - octave))) >> (15 - octave));
}

constexpr unsigned kPlaceLog = 24;
constexpr std::uint32_t kPlaceScale = 1u << kPlaceLog;
constexpr unsigned kInverseLog = 40;
constexpr unsigned kMostPower = 12;

// The first of `left` events that are spread evenly over `rest` comes before `place` with the chance
// 1 - (1 - place / rest)^left.
struct Spread {
  std::uint32_t rest;
  unsigned left;
  std::uint64_t inverse;  // 2^40 / rest, rounded up

  TEXTNLP_FAST_HD Spread(std::uint32_t rest_, unsigned left_)
      : rest(rest_),
        left(left_ < kMostPower ? left_ : kMostPower),
        inverse(((std::uint64_t{1} << kInverseLog) + rest_ - 1) / rest_) {}

  // That chance, and a unit more for every unit of hazard, so that nothing is impossible. From 0 to the whole scale.
  [[nodiscard]] TEXTNLP_FAST_HD std::uint32_t reach(std::uint32_t place) const {
    std::uint64_t after = (rest - place) * inverse >> (kInverseLog - kPlaceLog);
    if (after > kPlaceScale) after = kPlaceScale;
    std::uint64_t none = after;
    for (unsigned n = 1; n < left; ++n) none = none * after >> kPlaceLog;
    return place + static_cast<std::uint32_t>((kPlaceScale - rest) * (kPlaceScale - none) >> kPlaceLog);
  }
};

struct PlaceModel {
  static constexpr unsigned kBuckets = 21;  // octaves of a block's summed hazard, up to 2^20
  static constexpr unsigned kCounts = 4;
  Chance alive[2];  // by whether the block before was
  Chance more[kBuckets][kCounts];
  bool was_alive = true;
};

// Writes what read_* read. `events` are places in the block, row * 32 + column, in the order of columns, then rows.
void write_alive(PairWriter& out, PlaceModel& model, bool alive);
void write_events(PairWriter& out, PlaceModel& model, const SparseBlock& block, const std::uint16_t* events,
                  unsigned count);

TEXTNLP_FAST_HD inline bool read_alive(PairReader& in, PlaceModel& model) {
  model.was_alive = read_bit(in, model.alive[model.was_alive ? 1 : 0]);
  return model.was_alive;
}

// Fills `events` and returns their number, or kBlockElements + 1 if there cannot be so many.
unsigned read_events(PairReader& in, PlaceModel& model, const SparseBlock& block, std::uint16_t* events);

}  // namespace textnlp_fast

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

// The hazard of a code: 0 for code 0, then from 1 to 2048, two to an octave.
std::uint16_t hazard_of(unsigned code) noexcept;

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

bool read_alive(PairReader& in, PlaceModel& model);
// Fills `events` and returns their number, or kBlockElements + 1 if there cannot be so many.
unsigned read_events(PairReader& in, PlaceModel& model, const SparseBlock& block, std::uint16_t* events);

}  // namespace textnlp_fast

// The first step of an optimiser that divides by the size of its gradient (Adam, Lion, sign descent) moves every weight
// by one amount, up or down. Where the base is what the step started from, the new weight is one of two numbers that
// the reader can work out, and only the direction is left to tell.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "codec/byte_reader.h"
#include "codec/pair_rans.h"
#include "textnlp_fast/codec.h"

namespace textnlp_fast {

// Both outcomes of a step of `size`, each element rounded to its type.
struct Outcomes {
  std::vector<std::uint8_t> up;
  std::vector<std::uint8_t> down;

  void work_out(Dtype dtype, const std::uint8_t* base, std::size_t count, float size);
};

// The directions of the elements that can move, a bit each, and which elements are neither outcome, in groups of 32.
struct Directions {
  std::vector<std::uint8_t> bytes;
  std::vector<std::uint32_t> odd;
  std::size_t size = 0;  // bytes of directions

  // Bits are written in words of eight bytes, and looked at so.
  void prepare(std::size_t count) {
    if (bytes.size() < count / 8 + 16) bytes.resize(count / 8 + 16);
    if (odd.size() < count / 32 + 1) odd.resize(count / 32 + 1);
  }
};

// Types whose steps can be worked out.
TEXTNLP_FAST_HD inline bool has_steps(Dtype dtype) noexcept {
  return dtype == Dtype::bf16 || dtype == Dtype::f16 || dtype == Dtype::f32;
}

// The size of a step; false if it is none.
TEXTNLP_FAST_HD inline bool read_step(ByteReader& reader, Dtype dtype, float& step) {
  const std::uint8_t* const bytes = reader.take(sizeof step);
  if (bytes == nullptr || !has_steps(dtype)) return false;
  std::uint32_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  std::memcpy(&step, &bits, sizeof step);
  // Positive, finite and not subnormal.
  return bits >= 0x00800000 && bits < 0x7f800000;
}

// The size of step that explains most of what changed, judged by a sample; 0 if none explains nearly all.
float find_step(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t count);

// Elements in order, the last `events` of them known to have changed. Writes what is no step (about `bits` bits of it)
// and fills `directions`: a bit for each element that can move, 1 for up. Returns the bits in all, about.
double write_steps(PairWriter& out, Dtype dtype, const std::uint8_t* target, const std::uint8_t* base,
                   std::size_t count, std::size_t events, const Outcomes& outcomes, Directions& directions);

// Elements that can move: as many directions follow.
std::size_t count_movable(Dtype dtype, const std::uint8_t* base, std::size_t count, const Outcomes& outcomes);
// Up to eight bytes past the directions are looked at.
void read_steps(PairReader& in, Dtype dtype, const std::uint8_t* base, std::uint8_t* target, std::size_t count,
                std::size_t events, const Outcomes& outcomes, const std::uint8_t* directions);

}  // namespace textnlp_fast

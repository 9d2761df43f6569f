// What the decoders of frames share on a device: elements at any alignment, a warp's words, the frames' queue.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/rans.h"
#include "cuda/simt.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast::device {

template <class U>
TEXTNLP_FAST_DEVICE bool aligned(const void* at) {
  return reinterpret_cast<std::uintptr_t>(at) % sizeof(U) == 0;
}

// Byte by byte where a device would refuse the address.
template <class U>
TEXTNLP_FAST_DEVICE U load(const std::uint8_t* data, std::size_t index) {
  const std::uint8_t* const at = data + index * sizeof(U);
  if (aligned<U>(at)) return *reinterpret_cast<const U*>(at);
  U value = 0;
  for (unsigned b = 0; b < sizeof(U); ++b) value = static_cast<U>(value | static_cast<U>(at[b]) << (8 * b));
  return value;
}

template <class U>
TEXTNLP_FAST_DEVICE void store(std::uint8_t* data, std::size_t index, U value) {
  std::uint8_t* const at = data + index * sizeof(U);
  if (aligned<U>(at)) {
    *reinterpret_cast<U*>(at) = value;
    return;
  }
  for (unsigned b = 0; b < sizeof(U); ++b) at[b] = static_cast<std::uint8_t>(value >> (8 * b));
}

// The words of a segment. Past the end lanes get zeros, and it is remembered.
struct WarpWords {
  const std::uint8_t* at;
  const std::uint8_t* end;
  bool overrun;

  // A word for every lane that needs one, in the order of lanes.
  TEXTNLP_FAST_DEVICE std::uint32_t take(bool need) {
    const std::uint32_t takers = simt::ballot(need);
    const unsigned taken = 2 * simt::count_bits(takers);
    const unsigned before = 2 * simt::count_bits(takers & simt::lanes_below());
    const auto left = static_cast<std::size_t>(end - at);
    std::uint32_t word = 0;
    if (need && before + 2 <= left) word = load<std::uint16_t>(at + before, 0);
    overrun = overrun || taken > left;
    at = taken > left ? end : at + taken;
    return word;
  }
};

// A lane's state after a symbol or bits: every lane of the warp calls it.
TEXTNLP_FAST_DEVICE std::uint32_t refill(std::uint32_t state, WarpWords& words) {
  const bool need = state < kStateFloor;
  const std::uint32_t word = words.take(need);
  return need ? state << 16 | word : state;
}

// How a launch tells what went wrong: the number of the first frame that is not valid.
struct Outcome {
  std::uint32_t* first_bad;

  TEXTNLP_FAST_DEVICE void fail(std::uint32_t frame) const { simt::atomic_min(first_bad, frame); }
};

// Moves `size` bytes, by all threads of a block.
TEXTNLP_FAST_DEVICE void copy_by_block(const std::uint8_t* from, std::uint8_t* to, std::size_t size) {
  struct alignas(16) Vector {
    std::uint64_t parts[2];
  };
  std::size_t vectors = 0;
  if (aligned<Vector>(from) && aligned<Vector>(to)) vectors = size / sizeof(Vector);
  for (std::size_t i = simt::thread(); i < vectors; i += simt::block_threads()) {
    reinterpret_cast<Vector*>(to)[i] = reinterpret_cast<const Vector*>(from)[i];
  }
  for (std::size_t i = vectors * sizeof(Vector) + simt::thread(); i < size; i += simt::block_threads()) to[i] = from[i];
}

}  // namespace textnlp_fast::device

// Many inputs at once: lane i of every vector belongs to input i, so the rounds are the scalar code with wider words.
// Kernel files instantiate this with their own vector type; all is internal to the including file.
//
// A vector type V has:
//   Reg, kLanes
//   splat(word), load(words), add, exclusive_or, rotate16, rotate12, rotate8, rotate7 (to the right)
//   load_message(lanes, offset, m)   m[w] = word w of the block at lanes[i] + offset, for all lanes i
//   store_values(h, out)             the transposed way back: 32 bytes for each lane
//   prefetch(address)                to be inlined always: GCC drops calls of a function that does nothing but this
#pragma once
#include <cstring>

#include "hash/hash_constants.h"
#include "hash/hash_kernels.h"

namespace textnlp_fast {
namespace {

// Four independent quarter-rounds side by side (the columns, or the diagonals), written in step so that the processor
// always has four chains to choose from. x goes in at the first half, y at the second.
template <class V>
[[gnu::always_inline]] inline void mix4(typename V::Reg& a0, typename V::Reg& a1, typename V::Reg& a2,
                                        typename V::Reg& a3, typename V::Reg& b0, typename V::Reg& b1,
                                        typename V::Reg& b2, typename V::Reg& b3, typename V::Reg& c0,
                                        typename V::Reg& c1, typename V::Reg& c2, typename V::Reg& c3,
                                        typename V::Reg& d0, typename V::Reg& d1, typename V::Reg& d2,
                                        typename V::Reg& d3, const typename V::Reg* m, const std::uint8_t* order) {
  a0 = V::add(a0, m[order[0]]), a1 = V::add(a1, m[order[2]]);
  a2 = V::add(a2, m[order[4]]), a3 = V::add(a3, m[order[6]]);
  a0 = V::add(a0, b0), a1 = V::add(a1, b1), a2 = V::add(a2, b2), a3 = V::add(a3, b3);
  d0 = V::exclusive_or(d0, a0), d1 = V::exclusive_or(d1, a1);
  d2 = V::exclusive_or(d2, a2), d3 = V::exclusive_or(d3, a3);
  d0 = V::rotate16(d0), d1 = V::rotate16(d1), d2 = V::rotate16(d2), d3 = V::rotate16(d3);
  c0 = V::add(c0, d0), c1 = V::add(c1, d1), c2 = V::add(c2, d2), c3 = V::add(c3, d3);
  b0 = V::exclusive_or(b0, c0), b1 = V::exclusive_or(b1, c1);
  b2 = V::exclusive_or(b2, c2), b3 = V::exclusive_or(b3, c3);
  b0 = V::rotate12(b0), b1 = V::rotate12(b1), b2 = V::rotate12(b2), b3 = V::rotate12(b3);
  a0 = V::add(a0, m[order[1]]), a1 = V::add(a1, m[order[3]]);
  a2 = V::add(a2, m[order[5]]), a3 = V::add(a3, m[order[7]]);
  a0 = V::add(a0, b0), a1 = V::add(a1, b1), a2 = V::add(a2, b2), a3 = V::add(a3, b3);
  d0 = V::exclusive_or(d0, a0), d1 = V::exclusive_or(d1, a1);
  d2 = V::exclusive_or(d2, a2), d3 = V::exclusive_or(d3, a3);
  d0 = V::rotate8(d0), d1 = V::rotate8(d1), d2 = V::rotate8(d2), d3 = V::rotate8(d3);
  c0 = V::add(c0, d0), c1 = V::add(c1, d1), c2 = V::add(c2, d2), c3 = V::add(c3, d3);
  b0 = V::exclusive_or(b0, c0), b1 = V::exclusive_or(b1, c1);
  b2 = V::exclusive_or(b2, c2), b3 = V::exclusive_or(b3, c3);
  b0 = V::rotate7(b0), b1 = V::rotate7(b1), b2 = V::rotate7(b2), b3 = V::rotate7(b3);
}

template <class V, int kRound>
[[gnu::always_inline]] inline void mix_round(typename V::Reg (&v)[16], const typename V::Reg* m) {
  constexpr const std::uint8_t* order = kSchedule.word[kRound];
  mix4<V>(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15], m,
          order);
  mix4<V>(v[0], v[1], v[2], v[3], v[5], v[6], v[7], v[4], v[10], v[11], v[8], v[9], v[15], v[12], v[13], v[14], m,
          order + 8);
}

// Hashes up to V::kLanes inputs of `blocks` blocks. Lanes without an input repeat the last one; their values are
// dropped.
template <class V>
void hash_lanes(const HashNode& node, const std::uint8_t* inputs, std::size_t blocks, std::size_t count,
                std::uint64_t counter, std::uint64_t counter_step, std::uint8_t* out) noexcept {
  using Reg = typename V::Reg;
  constexpr std::size_t lanes = V::kLanes;
  const std::size_t stride = blocks * kBlockBytes;
  const std::uint8_t* lane[lanes];
  alignas(64) std::uint32_t low[lanes];
  alignas(64) std::uint32_t high[lanes];
  for (std::size_t i = 0; i < lanes; ++i) {
    lane[i] = inputs + stride * (i < count ? i : count - 1);
    const std::uint64_t number = counter + counter_step * i;
    low[i] = static_cast<std::uint32_t>(number);
    high[i] = static_cast<std::uint32_t>(number >> 32);
  }
  Reg v[16];
  v[0] = V::splat(node.key[0]), v[1] = V::splat(node.key[1]), v[2] = V::splat(node.key[2]);
  v[3] = V::splat(node.key[3]), v[4] = V::splat(node.key[4]), v[5] = V::splat(node.key[5]);
  v[6] = V::splat(node.key[6]), v[7] = V::splat(node.key[7]);
  for (std::size_t block = 0; block < blocks; ++block) {
    Reg m[16];
    V::load_message(lane, block * kBlockBytes, m);
    // The next group's bytes, in memory order: the processor's own prefetching loses track of sixteen streams a
    // kilobyte apart. Past the end of the input this asks for memory that is not ours, which a prefetch may.
    const std::uintptr_t next = reinterpret_cast<std::uintptr_t>(inputs) + (stride + block * kBlockBytes) * lanes;
    for (std::size_t i = 0; i < lanes; ++i) V::prefetch(reinterpret_cast<const void*>(next + i * kBlockBytes));
    const std::uint32_t flags =
        node.flags | (block == 0 ? node.first_flags : 0) | (block + 1 == blocks ? node.last_flags : 0);
    v[8] = V::splat(kInitial[0]), v[9] = V::splat(kInitial[1]);
    v[10] = V::splat(kInitial[2]), v[11] = V::splat(kInitial[3]);
    v[12] = V::load(low), v[13] = V::load(high);
    v[14] = V::splat(kBlockBytes), v[15] = V::splat(flags);
    mix_round<V, 0>(v, m);
    mix_round<V, 1>(v, m);
    mix_round<V, 2>(v, m);
    mix_round<V, 3>(v, m);
    mix_round<V, 4>(v, m);
    mix_round<V, 5>(v, m);
    mix_round<V, 6>(v, m);
    v[0] = V::exclusive_or(v[0], v[8]), v[1] = V::exclusive_or(v[1], v[9]);
    v[2] = V::exclusive_or(v[2], v[10]), v[3] = V::exclusive_or(v[3], v[11]);
    v[4] = V::exclusive_or(v[4], v[12]), v[5] = V::exclusive_or(v[5], v[13]);
    v[6] = V::exclusive_or(v[6], v[14]), v[7] = V::exclusive_or(v[7], v[15]);
  }
  if (count >= lanes) {
    V::store_values(v, out);
    return;
  }
  alignas(64) std::uint8_t values[lanes * kValueBytes];
  V::store_values(v, values);
  std::memcpy(out, values, count * kValueBytes);
}

}  // namespace
}  // namespace textnlp_fast

// Many inputs at once: lane i of every vector belongs to input i, so the rounds are the scalar code with wider words.
// Kernel files instantiate this with their own vector type; all is internal to the including file.
//
// A vector type V has:
//   Reg, kLanes
//   kChains                          quarter-rounds that run in step: four where registers allow, two in sixteen
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

// One step of V::kChains quarter-rounds, kFirst and those after it. kTurn is 0 for the columns and 1 for the diagonals:
// row r of quarter-round i is word i + r * kTurn of that row.
template <class V, int kTurn, int kFirst>
struct Quarters {
  using Reg = typename V::Reg;
  static constexpr int kEnd = kFirst + V::kChains;
  static constexpr int a(int i) { return i; }
  static constexpr int b(int i) { return 4 + (i + kTurn) % 4; }
  static constexpr int c(int i) { return 8 + (i + 2 * kTurn) % 4; }
  static constexpr int d(int i) { return 12 + (i + 3 * kTurn) % 4; }

  template <Reg (*rotate_d)(Reg), Reg (*rotate_b)(Reg)>
  [[gnu::always_inline]] static void half(Reg (&v)[16], const Reg* m, const std::uint8_t* order) {
    for (int i = kFirst; i < kEnd; ++i) v[a(i)] = V::add(v[a(i)], m[order[2 * i]]);
    for (int i = kFirst; i < kEnd; ++i) v[a(i)] = V::add(v[a(i)], v[b(i)]);
    for (int i = kFirst; i < kEnd; ++i) v[d(i)] = V::exclusive_or(v[d(i)], v[a(i)]);
    for (int i = kFirst; i < kEnd; ++i) v[d(i)] = rotate_d(v[d(i)]);
    for (int i = kFirst; i < kEnd; ++i) v[c(i)] = V::add(v[c(i)], v[d(i)]);
    for (int i = kFirst; i < kEnd; ++i) v[b(i)] = V::exclusive_or(v[b(i)], v[c(i)]);
    for (int i = kFirst; i < kEnd; ++i) v[b(i)] = rotate_b(v[b(i)]);
  }
  [[gnu::always_inline]] static void mix(Reg (&v)[16], const Reg* m, const std::uint8_t* order) {
    half<V::rotate16, V::rotate12>(v, m, order);
    half<V::rotate8, V::rotate7>(v, m, order + 1);
    if constexpr (kEnd < 4) Quarters<V, kTurn, kEnd>::mix(v, m, order);
  }
};

template <class V, int kRound>
[[gnu::always_inline]] inline void mix_round(typename V::Reg (&v)[16], const typename V::Reg* m) {
  Quarters<V, 0, 0>::mix(v, m, kSchedule.word[kRound]);
  Quarters<V, 1, 0>::mix(v, m, kSchedule.word[kRound] + 8);
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
    for (std::size_t i = 0; i < lanes; ++i) {
      V::prefetch(reinterpret_cast<const void*>(next + i * kBlockBytes));
    }
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

// Many inputs at once: lane i of every vector belongs to input i, so the rounds are the scalar code with wider words.
// Kernel files instantiate this with their own vector type; all is internal to the including file.
//
// A vector type V has:
//   Reg, kLanes
//   kChains                          quarter-rounds that run in step: four where registers allow, two in sixteen
//   splat(word), load(words), add, exclusive_or, rotate16, rotate12, rotate8, rotate7 (to the right)
//   load_message(lanes, offset, m)   m[w] = word w of the block at lanes[i] + offset, for all lanes i
//   store_values(h, outs)            the transposed way back: 32 bytes of lane i at outs[i]
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

// What a lane reads when its input has ended before others have; its value was taken then.
constexpr std::uint8_t kZeroBlock[kBlockBytes] = {};

// A pointer that is `begin` bytes before `block`, so that all lanes can read at one offset.
inline const std::uint8_t* back_from(const std::uint8_t* block, std::size_t begin) noexcept {
  return reinterpret_cast<const std::uint8_t*>(reinterpret_cast<std::uintptr_t>(block) - begin);
}

// The inputs of one call, a lane each. Lanes without an input repeat the last one; their values are dropped.
template <std::size_t kLanes>
struct LaneState {
  const std::uint8_t* start[kLanes];
  alignas(64) std::uint32_t low[kLanes];  // of the counters
  alignas(64) std::uint32_t high[kLanes];
  // Of the block at which inputs end: the length, the flags that only an end has, and where the value goes.
  alignas(64) std::uint32_t length[kLanes];
  alignas(64) std::uint32_t flags[kLanes];
  std::uint8_t* out[kLanes];
  alignas(64) std::uint8_t padded[kLanes][kBlockBytes];  // last blocks that are not whole
  std::uint8_t dropped[kValueBytes];

  // Returns whether all inputs are the same number of whole blocks; `length`, `flags` and `out` are then those of the
  // last.
  bool begin(const HashNode& node, const HashInput* inputs, std::size_t count) noexcept {
    const std::uint32_t size_bytes = inputs->size_bytes;
    std::uint32_t differing = size_bytes == 0 ? 1 : size_bytes % kBlockBytes;
    for (std::size_t i = 0; i < kLanes; ++i) {
      const HashInput& input = inputs[i < count ? i : count - 1];
      differing |= input.size_bytes ^ size_bytes;
      start[i] = input.bytes;
      low[i] = static_cast<std::uint32_t>(input.counter);
      high[i] = static_cast<std::uint32_t>(input.counter >> 32);
      length[i] = kBlockBytes;
      flags[i] = node.last_flags | input.last_flags;
      out[i] = i < count ? input.out : dropped;
    }
    return differing == 0;
  }

  // Sets up block number `block` of inputs that differ in size. Returns whether any of them goes on behind it.
  bool step(const HashNode& node, const HashInput* inputs, std::size_t count, std::size_t block) noexcept {
    const std::size_t begin = block * kBlockBytes;
    bool more = false;
    for (std::size_t i = 0; i < kLanes; ++i) {
      const HashInput& input = inputs[i < count ? i : count - 1];
      length[i] = kBlockBytes;
      flags[i] = 0;
      out[i] = dropped;
      if (block > 0 && begin >= input.size_bytes) {
        start[i] = back_from(kZeroBlock, begin);
        continue;
      }
      const std::size_t left = input.size_bytes - begin;
      if (left > kBlockBytes) {
        more = true;
        continue;
      }
      flags[i] = node.last_flags | input.last_flags;
      if (i < count) out[i] = input.out;
      if (left == kBlockBytes) continue;
      length[i] = static_cast<std::uint32_t>(left);
      std::memset(padded[i], 0, kBlockBytes);
      if (left > 0) std::memcpy(padded[i], input.bytes + begin, left);
      start[i] = back_from(padded[i], begin);
    }
    return more;
  }
};

template <class V>
[[gnu::always_inline]] inline void start_lanes(typename V::Reg (&v)[16], const std::uint32_t* key) {
  v[0] = V::splat(key[0]), v[1] = V::splat(key[1]), v[2] = V::splat(key[2]), v[3] = V::splat(key[3]);
  v[4] = V::splat(key[4]), v[5] = V::splat(key[5]), v[6] = V::splat(key[6]), v[7] = V::splat(key[7]);
}

// v[14] and v[15] are set.
template <class V>
[[gnu::always_inline]] inline void compress_lanes(typename V::Reg (&v)[16], const typename V::Reg* m,
                                                  const LaneState<V::kLanes>& state) {
  v[8] = V::splat(kInitial[0]), v[9] = V::splat(kInitial[1]);
  v[10] = V::splat(kInitial[2]), v[11] = V::splat(kInitial[3]);
  v[12] = V::load(state.low), v[13] = V::load(state.high);
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

// Inputs of `blocks` whole blocks each. `next` are the inputs of the next group.
template <class V>
[[gnu::always_inline]] inline void hash_even(const HashNode& node, LaneState<V::kLanes>& state, std::size_t blocks,
                                             const HashInput* next, std::size_t next_count) {
  using Reg = typename V::Reg;
  constexpr std::size_t lanes = V::kLanes;
  Reg v[16];
  start_lanes<V>(v, node.key);
  for (std::size_t block = 0; block < blocks; ++block) {
    Reg m[16];
    V::load_message(state.start, block * kBlockBytes, m);
    // The next group's bytes, input by input: the processor's own prefetching loses track of sixteen streams a kilobyte
    // apart. Behind the last input the guess is that memory goes on; a prefetch may ask for what is not ours.
    const std::size_t wanted = block * lanes / kChunkBlocks;
    const std::size_t known = wanted < next_count ? wanted : next_count - 1;
    const std::uintptr_t ahead = reinterpret_cast<std::uintptr_t>(next[known].bytes) + (wanted - known) * kChunkBytes +
                                 block * lanes % kChunkBlocks * kBlockBytes;
    for (std::size_t i = 0; i < lanes; ++i) {
      V::prefetch(reinterpret_cast<const void*>(ahead + i * kBlockBytes));
    }
    const std::uint32_t flags = node.flags | (block == 0 ? node.first_flags : 0);
    v[14] = V::splat(kBlockBytes), v[15] = V::splat(flags);
    if (block + 1 == blocks) v[15] = V::exclusive_or(v[15], V::load(state.flags));
    compress_lanes<V>(v, m, state);
  }
  V::store_values(v, state.out);
}

template <class V>
[[gnu::always_inline]] inline void hash_uneven(const HashNode& node, LaneState<V::kLanes>& state,
                                               const HashInput* inputs, std::size_t count) {
  using Reg = typename V::Reg;
  Reg v[16];
  start_lanes<V>(v, node.key);
  bool more = true;
  for (std::size_t block = 0; more; ++block) {
    more = state.step(node, inputs, count, block);
    Reg m[16];
    V::load_message(state.start, block * kBlockBytes, m);
    const std::uint32_t flags = node.flags | (block == 0 ? node.first_flags : 0);
    v[14] = V::load(state.length), v[15] = V::exclusive_or(V::splat(flags), V::load(state.flags));
    compress_lanes<V>(v, m, state);
    V::store_values(v, state.out);
  }
}

// Hashes `count` (1 to V::kLanes) inputs of any sizes; `behind` more follow them in the list.
template <class V>
void hash_lanes(const HashNode& node, const HashInput* inputs, std::size_t count, std::size_t behind) noexcept {
  LaneState<V::kLanes> state;
  if (!state.begin(node, inputs, count)) {
    hash_uneven<V>(node, state, inputs, count);
    return;
  }
  const std::size_t next_count = behind > 0 ? behind : 1;
  hash_even<V>(node, state, inputs->size_bytes / kBlockBytes, inputs + (behind > 0 ? count : count - 1), next_count);
}

}  // namespace
}  // namespace textnlp_fast

// Many inputs at once: lane i of every vector belongs to input i, so the rounds are the scalar code with wider words.
// Kernel files instantiate this with their own vector type; all is internal to the including file.
//
// A vector type V has:
//   Reg, kLanes
//   kChains                          quarter-rounds that run in step: four where registers allow, two in sixteen
//   splat(word), load(words), add, exclusive_or, rotate16, rotate12, rotate8, rotate7 (to the right)
//   load_message(lanes, m)           m[w] = word w of the block at lanes[i], for all lanes i
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

// What a lane reads when its input has ended before others have; its value was taken then.
constexpr std::uint8_t kZeroBlock[kBlockBytes] = {};

// Where the lanes of one call stand: the block that each reads next, its length and its flags.
template <std::size_t kLanes>
struct LaneState {
  const std::uint8_t* at[kLanes];
  alignas(64) std::uint32_t length[kLanes];
  alignas(64) std::uint32_t flags[kLanes];
  alignas(64) std::uint8_t padded[kLanes][kBlockBytes];  // last blocks that are not whole
  bool ends[kLanes];                                     // this block is the input's last

  // Sets up block number `block`, at which some inputs end; `all` are the flags of every block of that number. Returns
  // whether any input goes on.
  bool end_some(const HashNode& node, const HashInput* const* inputs, std::size_t block, std::uint32_t all) noexcept {
    const std::size_t begin = block * kBlockBytes;
    bool more = false;
    for (std::size_t i = 0; i < kLanes; ++i) {
      const HashInput& input = *inputs[i];
      length[i] = kBlockBytes;
      flags[i] = all;
      ends[i] = false;
      if (begin >= input.size_bytes && block > 0) {
        at[i] = kZeroBlock;
        continue;
      }
      at[i] = input.bytes + begin;
      const std::size_t left = input.size_bytes - begin;
      if (left > kBlockBytes) {
        more = true;
        continue;
      }
      ends[i] = true;
      flags[i] = all | node.last_flags | input.last_flags;
      if (left == kBlockBytes) continue;
      length[i] = static_cast<std::uint32_t>(left);
      std::memset(padded[i], 0, kBlockBytes);
      if (left > 0) std::memcpy(padded[i], at[i], left);
      at[i] = padded[i];
    }
    return more;
  }

  // The same where all inputs end, each with a whole block.
  void end_all(const HashNode& node, const HashInput* const* inputs, std::uint32_t all) noexcept {
    for (std::size_t i = 0; i < kLanes; ++i) {
      length[i] = kBlockBytes;
      flags[i] = all | node.last_flags | inputs[i]->last_flags;
      ends[i] = true;
    }
  }
};

template <class V>
[[gnu::always_inline]] inline void start_lanes(typename V::Reg (&v)[16], const std::uint32_t* key) {
  v[0] = V::splat(key[0]), v[1] = V::splat(key[1]), v[2] = V::splat(key[2]), v[3] = V::splat(key[3]);
  v[4] = V::splat(key[4]), v[5] = V::splat(key[5]), v[6] = V::splat(key[6]), v[7] = V::splat(key[7]);
}

template <class V>
[[gnu::always_inline]] inline void compress_lanes(typename V::Reg (&v)[16], const typename V::Reg* m) {
  v[8] = V::splat(kInitial[0]), v[9] = V::splat(kInitial[1]);
  v[10] = V::splat(kInitial[2]), v[11] = V::splat(kInitial[3]);
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

// Hashes `count` (1 to V::kLanes) inputs of any sizes. Lanes without an input repeat the last one; their values are
// dropped. `behind` more inputs follow these in the list: their bytes are asked for while these are hashed.
template <class V>
void hash_lanes(const HashNode& node, const HashInput* inputs, std::size_t count, std::size_t behind) noexcept {
  using Reg = typename V::Reg;
  constexpr std::size_t lanes = V::kLanes;
  LaneState<lanes> state;
  const HashInput* lane[lanes];
  alignas(64) std::uint32_t low[lanes];
  alignas(64) std::uint32_t high[lanes];
  const std::uint32_t size_bytes = inputs->size_bytes;
  std::uint32_t shortest = size_bytes;
  bool even = size_bytes > 0 && size_bytes % kBlockBytes == 0;
  for (std::size_t i = 0; i < lanes; ++i) {
    lane[i] = inputs + (i < count ? i : count - 1);
    state.at[i] = lane[i]->bytes;
    low[i] = static_cast<std::uint32_t>(lane[i]->counter);
    high[i] = static_cast<std::uint32_t>(lane[i]->counter >> 32);
    even = even && lane[i]->size_bytes == size_bytes;
    if (lane[i]->size_bytes < shortest) shortest = lane[i]->size_bytes;
  }
  Reg v[16];
  start_lanes<V>(v, node.key);
  bool more = true;
  for (std::size_t block = 0; more; ++block) {
    const std::uint32_t all = node.flags | (block == 0 ? node.first_flags : 0);
    const bool ends = (block + 1) * kBlockBytes >= shortest;
    if (!ends) {
      v[14] = V::splat(kBlockBytes), v[15] = V::splat(all);
    } else {
      if (even) {
        state.end_all(node, lane, all);
        more = false;
      } else {
        more = state.end_some(node, lane, block, all);
      }
      v[14] = V::load(state.length), v[15] = V::load(state.flags);
    }
    Reg m[16];
    V::load_message(state.at, m);
    for (std::size_t i = 0; i < lanes; ++i) state.at[i] += kBlockBytes;
    // The next group's bytes, input by input: the processor's own prefetching loses track of sixteen streams a kilobyte
    // apart. Behind the last input the guess is that memory goes on; a prefetch may ask for what is not ours.
    const std::size_t wanted = lanes + block * lanes / kChunkBlocks;
    const std::size_t known = wanted < count + behind ? wanted : count + behind - 1;
    const std::uintptr_t next = reinterpret_cast<std::uintptr_t>(inputs[known].bytes) +
                                (wanted - known) * kChunkBytes + block * lanes % kChunkBlocks * kBlockBytes;
    for (std::size_t i = 0; i < lanes; ++i) {
      V::prefetch(reinterpret_cast<const void*>(next + i * kBlockBytes));
    }
    v[12] = V::load(low), v[13] = V::load(high);
    compress_lanes<V>(v, m);
    if (!ends) continue;
    alignas(64) std::uint8_t values[lanes * kValueBytes];
    V::store_values(v, values);
    for (std::size_t i = 0; i < count; ++i) {
      if (state.ends[i]) std::memcpy(inputs[i].out, values + i * kValueBytes, kValueBytes);
    }
  }
}

}  // namespace
}  // namespace textnlp_fast

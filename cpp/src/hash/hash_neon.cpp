#include <arm_neon.h>

#include "hash/hash_kernels.h"
#include "hash/hash_lanes.h"
#include "hash/hash_rows.h"

namespace textnlp_fast {
namespace {

// NEON shifts and inserts in one instruction, which makes a rotation of two; by 16 it is a swap of half-words.
struct Words4 {
  using Reg = uint32x4_t;
  static Reg add(Reg a, Reg b) { return vaddq_u32(a, b); }
  static Reg exclusive_or(Reg a, Reg b) { return veorq_u32(a, b); }
  static Reg rotate16(Reg a) { return vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(a))); }
  static Reg rotate12(Reg a) { return vsriq_n_u32(vshlq_n_u32(a, 20), a, 12); }
  static Reg rotate8(Reg a) { return vsriq_n_u32(vshlq_n_u32(a, 24), a, 8); }
  static Reg rotate7(Reg a) { return vsriq_n_u32(vshlq_n_u32(a, 25), a, 7); }
};

struct Lanes4 : Words4 {
  static constexpr std::size_t kLanes = 4;
  static constexpr int kChains = 4;
  static Reg splat(std::uint32_t word) { return vdupq_n_u32(word); }
  static Reg load(const std::uint32_t* words) { return vld1q_u32(words); }
  [[gnu::always_inline]] static void prefetch(const void* address) { __builtin_prefetch(address); }

  static Reg bytes(const std::uint8_t* from) { return vreinterpretq_u32_u8(vld1q_u8(from)); }
  static Reg lower(Reg a, Reg b) { return vcombine_u32(vget_low_u32(a), vget_low_u32(b)); }
  static Reg upper(Reg a, Reg b) { return vcombine_u32(vget_high_u32(a), vget_high_u32(b)); }

  // Rows to columns of a 4 by 4 square of words; its own inverse.
  [[gnu::always_inline]] static void transpose(Reg x0, Reg x1, Reg x2, Reg x3, Reg* out) {
    const uint32x4x2_t pair01 = vtrnq_u32(x0, x1);
    const uint32x4x2_t pair23 = vtrnq_u32(x2, x3);
    out[0] = lower(pair01.val[0], pair23.val[0]);
    out[1] = lower(pair01.val[1], pair23.val[1]);
    out[2] = upper(pair01.val[0], pair23.val[0]);
    out[3] = upper(pair01.val[1], pair23.val[1]);
  }
  [[gnu::always_inline]] static void load_message(const std::uint8_t* const* lanes, std::size_t at, Reg* m) {
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      const std::size_t from = at + 16 * quarter;
      transpose(bytes(lanes[0] + from), bytes(lanes[1] + from), bytes(lanes[2] + from), bytes(lanes[3] + from),
                m + 4 * quarter);
    }
  }
  static void store_values(const Reg* h, std::uint8_t* const* outs) {
    Reg words[8];
    transpose(h[0], h[1], h[2], h[3], words);
    transpose(h[4], h[5], h[6], h[7], words + 4);
    for (std::size_t i = 0; i < 4; ++i) {
      vst1q_u8(outs[i], vreinterpretq_u8_u32(words[i]));
      vst1q_u8(outs[i] + 16, vreinterpretq_u8_u32(words[i + 4]));
    }
  }
};

struct Rows : Words4 {
  static Reg set(std::uint32_t w0, std::uint32_t w1, std::uint32_t w2, std::uint32_t w3) {
    const std::uint32_t words[4] = {w0, w1, w2, w3};
    return vld1q_u32(words);
  }
  static Reg load(const std::uint32_t* words) { return vld1q_u32(words); }
  static void store(std::uint8_t* bytes, Reg row) { vst1q_u8(bytes, vreinterpretq_u8_u32(row)); }
  template <int k>
  static Reg turn(Reg row) {
    return vextq_u32(row, row, k);
  }

  struct Message {
    const std::uint8_t* block;
    explicit Message(const std::uint8_t* from) : block(from) {}

    std::uint32_t word(int index) const {
      std::uint32_t value;
      __builtin_memcpy(&value, block + 4 * index, sizeof value);
      return value;
    }
    template <int kRound>
    [[gnu::always_inline]] void rows(Reg& x, Reg& y, Reg& z, Reg& t) const {
      constexpr const std::uint8_t* order = kSchedule.word[kRound];
      x = set(word(order[0]), word(order[2]), word(order[4]), word(order[6]));
      y = set(word(order[1]), word(order[3]), word(order[5]), word(order[7]));
      z = set(word(order[diagonal_word(0, 0)]), word(order[diagonal_word(1, 0)]), word(order[diagonal_word(2, 0)]),
              word(order[diagonal_word(3, 0)]));
      t = set(word(order[diagonal_word(0, 1)]), word(order[diagonal_word(1, 1)]), word(order[diagonal_word(2, 1)]),
              word(order[diagonal_word(3, 1)]));
    }
  };
};

void hash_each(const HashNode& node, const HashInput* inputs, std::size_t count) noexcept {
  while (count > 0) {
    const std::size_t taken = count < Lanes4::kLanes ? count : Lanes4::kLanes;
    if (taken == 1) {
      hash_input<Rows>(node, *inputs);
    } else {
      hash_lanes<Lanes4>(node, inputs, taken, count - taken);
    }
    inputs += taken;
    count -= taken;
  }
}

}  // namespace

const HashKernels hash_kernels_neon = {"neon", hash_one_rows<Rows>, hash_each};

}  // namespace textnlp_fast

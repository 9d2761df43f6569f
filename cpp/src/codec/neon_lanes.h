// Thirty-two rANS lanes on NEON: the upper and the lower halves of the states apart, eight to a register, in lane
// order. Only for 64-bit Arm.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "codec/codec_scalar.h"
#include "codec/segment_stream.h"

// Steps must see their registers: out of line, every lane would go through memory.
#define TEXTNLP_FAST_INLINE inline __attribute__((always_inline))

namespace textnlp_fast {
namespace {
namespace neon {

constexpr unsigned kRegisters = 4;

// Thirty-two numbers of 16 bits.
struct Words {
  uint16x8_t part[kRegisters];
};

struct Lanes {
  Words high;
  Words low;
};

TEXTNLP_FAST_INLINE Words load_words(const std::uint16_t* from) {
  return {{vld1q_u16(from), vld1q_u16(from + 8), vld1q_u16(from + 16), vld1q_u16(from + 24)}};
}

TEXTNLP_FAST_INLINE void store_words(std::uint16_t* to, const Words& words) {
  for (unsigned r = 0; r < kRegisters; ++r) vst1q_u16(to + 8 * r, words.part[r]);
}

// Elements need not be aligned.
TEXTNLP_FAST_INLINE Words load_elements(const std::uint8_t* data, std::size_t element) {
  Words words;
  for (unsigned r = 0; r < kRegisters; ++r) {
    words.part[r] = vreinterpretq_u16_u8(vld1q_u8(data + 2 * element + 16 * r));
  }
  return words;
}

TEXTNLP_FAST_INLINE void store_elements(std::uint8_t* data, std::size_t element, const Words& words) {
  for (unsigned r = 0; r < kRegisters; ++r) {
    vst1q_u8(data + 2 * element + 16 * r, vreinterpretq_u8_u16(words.part[r]));
  }
}

inline Lanes load_lanes(const std::uint32_t* states) {
  std::uint16_t high[kLanes];
  std::uint16_t low[kLanes];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    high[lane] = static_cast<std::uint16_t>(states[lane] >> 16);
    low[lane] = static_cast<std::uint16_t>(states[lane]);
  }
  return {load_words(high), load_words(low)};
}

inline void store_lanes(std::uint32_t* states, const Lanes& lanes) {
  std::uint16_t high[kLanes];
  std::uint16_t low[kLanes];
  store_words(high, lanes.high);
  store_words(low, lanes.low);
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    states[lane] = static_cast<std::uint32_t>(high[lane]) << 16 | low[lane];
  }
}

TEXTNLP_FAST_INLINE bool any(const Words& mask) {
  return vmaxvq_u16(vorrq_u16(vorrq_u16(mask.part[0], mask.part[1]), vorrq_u16(mask.part[2], mask.part[3]))) != 0;
}

// A bit for each of the eight lanes of a mask.
TEXTNLP_FAST_INLINE unsigned bits_of(uint16x8_t mask) {
  static const std::uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  return vaddvq_u16(vandq_u16(mask, vld1q_u16(kBits)));
}

// Byte shuffles that hand packed words to the lanes of a mask of eight, and how many bytes those are.
struct Expansion {
  alignas(16) std::uint8_t shuffle[256][16];
  std::uint8_t bytes[256];

  constexpr Expansion() : shuffle{}, bytes{} {
    for (unsigned mask = 0; mask < 256; ++mask) {
      unsigned taken = 0;
      for (unsigned lane = 0; lane < 8; ++lane) {
        const bool on = (mask >> lane & 1) != 0;
        shuffle[mask][2 * lane] = static_cast<std::uint8_t>(on ? 2 * taken : 0xff);
        shuffle[mask][2 * lane + 1] = static_cast<std::uint8_t>(on ? 2 * taken + 1 : 0xff);
        taken += on ? 1 : 0;
      }
      bytes[mask] = static_cast<std::uint8_t>(2 * taken);
    }
  }
};

constexpr Expansion kExpansion;

// Refills the lanes whose state fell below the floor.
TEXTNLP_FAST_INLINE void refill(Lanes& lanes, SegmentStream& stream) {
  Words need;
  unsigned bits[kRegisters];
  for (unsigned r = 0; r < kRegisters; ++r) {
    need.part[r] = vceqzq_u16(lanes.high.part[r]);
    bits[r] = bits_of(need.part[r]);
  }
  const std::uint8_t* at = stream.at;
  for (unsigned r = 0; r < kRegisters; ++r) {
    // A look-up gives zero where the index is out of range.
    const uint16x8_t words = vreinterpretq_u16_u8(vqtbl1q_u8(vld1q_u8(at), vld1q_u8(kExpansion.shuffle[bits[r]])));
    at += kExpansion.bytes[bits[r]];
    lanes.high.part[r] = vbslq_u16(need.part[r], lanes.low.part[r], lanes.high.part[r]);
    lanes.low.part[r] = vbslq_u16(need.part[r], words, lanes.low.part[r]);
  }
  stream.at = at;
}

TEXTNLP_FAST_INLINE bool any_below_floor(const Lanes& lanes) {
  const uint16x8_t least =
      vminq_u16(vminq_u16(lanes.high.part[0], lanes.high.part[1]), vminq_u16(lanes.high.part[2], lanes.high.part[3]));
  return vminvq_u16(least) == 0;
}

// state = freq * (state >> log) + offset, in halves.
struct Shifts {
  int16x8_t down;
  int16x8_t up;

  explicit Shifts(unsigned table_log)
      : down(vdupq_n_s16(static_cast<std::int16_t>(-static_cast<int>(table_log)))),
        up(vdupq_n_s16(static_cast<std::int16_t>(16 - table_log))) {}
};

TEXTNLP_FAST_INLINE void advance(Lanes& lanes, const Words& freq, const Words& offset, const Shifts& shifts) {
  for (unsigned r = 0; r < kRegisters; ++r) {
    const uint16x8_t f = freq.part[r];
    const uint16x8_t quotient_high = vshlq_u16(lanes.high.part[r], shifts.down);
    const uint16x8_t quotient_low =
        vorrq_u16(vshlq_u16(lanes.low.part[r], shifts.down), vshlq_u16(lanes.high.part[r], shifts.up));
    const uint32x4_t first =
        vaddw_u16(vmull_u16(vget_low_u16(f), vget_low_u16(quotient_low)), vget_low_u16(offset.part[r]));
    const uint32x4_t second = vaddw_high_u16(vmull_high_u16(f, quotient_low), offset.part[r]);
    const uint16x8_t a = vreinterpretq_u16_u32(first);
    const uint16x8_t b = vreinterpretq_u16_u32(second);
    lanes.low.part[r] = vuzp1q_u16(a, b);
    lanes.high.part[r] = vmlaq_u16(vuzp2q_u16(a, b), f, quotient_high);
  }
}

// Slot entries of thirty-two lanes, unpacked.
struct Entries {
  Words freq;
  Words offset;
  Words symbol;
};

TEXTNLP_FAST_INLINE Entries find_entries(const std::uint32_t* slots, const Words& index) {
  std::uint16_t numbers[kLanes];
  std::uint32_t found[kLanes];
  store_words(numbers, index);
  for (unsigned lane = 0; lane < kLanes; ++lane) found[lane] = slots[numbers[lane]];
  const uint16x8_t twelve = vdupq_n_u16(0xfff);
  Entries entries;
  for (unsigned r = 0; r < kRegisters; ++r) {
    const uint16x8_t a = vreinterpretq_u16_u32(vld1q_u32(found + 8 * r));
    const uint16x8_t b = vreinterpretq_u16_u32(vld1q_u32(found + 8 * r + 4));
    const uint16x8_t lows = vuzp1q_u16(a, b);
    const uint16x8_t highs = vuzp2q_u16(a, b);
    entries.freq.part[r] = vaddq_u16(vandq_u16(lows, twelve), vdupq_n_u16(1));
    entries.offset.part[r] = vandq_u16(highs, twelve);
    entries.symbol.part[r] = vorrq_u16(vshrq_n_u16(lows, 12), vandq_u16(vshrq_n_u16(highs, 8), vdupq_n_u16(0xf0)));
  }
  return entries;
}

// Runs `step(element, lanes, stream)` over the whole steps of kWays segments at once, so that their latencies overlap;
// `tail(segment, first, words)` decodes the elements from `first` on with scalar code.
template <unsigned kWays, class Step, class Tail>
bool decode_ways(SegmentInput* segments, const Step& step, const Tail& tail) {
  SegmentStream streams[kWays];
  Lanes lanes[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    streams[w].open(segments[w].words, segments[w].end);
    lanes[w] = load_lanes(segments[w].states);
    const std::size_t steps = segments[w].count / kLanes;
    shared = steps < shared ? steps : shared;
  }
  for (std::size_t at = 0; at < shared; ++at) {
    for (unsigned w = 0; w < kWays; ++w) {
      if (!streams[w].ready()) return false;
      step(segments[w].begin + at * kLanes, lanes[w], streams[w]);
    }
  }
  for (unsigned w = 0; w < kWays; ++w) {
    SegmentInput& segment = segments[w];
    std::size_t at = shared;
    for (; at < segment.count / kLanes; ++at) {
      if (!streams[w].ready()) return false;
      step(segment.begin + at * kLanes, lanes[w], streams[w]);
    }
    store_lanes(segment.states, lanes[w]);
    if (streams[w].overrun()) return false;
    WordReader words{streams[w].at, streams[w].end, false};
    tail(segment, at * kLanes, words);
    if (!scalar::finished(segment.states, words)) return false;
  }
  return true;
}

template <class Step, class Tail>
bool decode_segments(SegmentInput* segments, unsigned count, const Step& step, const Tail& tail) {
  unsigned at = 0;
  for (; count - at >= 2; at += 2) {
    if (!decode_ways<2>(segments + at, step, tail)) return false;
  }
  return at == count || decode_ways<1>(segments + at, step, tail);
}

}  // namespace neon
}  // namespace
}  // namespace textnlp_fast

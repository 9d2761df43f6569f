// Byte planes on NEON.
#pragma once
#include "codec/neon_lanes.h"

namespace textnlp_fast {
namespace {
namespace neon {

struct PlaneReader {
  const std::uint32_t* slots;
  uint16x8_t slot_mask;
  Shifts shifts;

  explicit PlaneReader(const ByteDecodeTable& table)
      : slots(table.slots),
        slot_mask(vdupq_n_u16(static_cast<std::uint16_t>((1u << table.table_log) - 1))),
        shifts(table.table_log) {}

  // Symbols of one step.
  TEXTNLP_FAST_INLINE Words take(Lanes& lanes, SegmentStream& stream) const {
    Words slot;
    for (unsigned r = 0; r < kRegisters; ++r) slot.part[r] = vandq_u16(lanes.low.part[r], slot_mask);
    const Entries entries = find_entries(slots, slot);
    advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    return entries.symbol;
  }
};

bool bytes_decode(SegmentInput* segments, unsigned count, const ByteDecodeTable* table, std::uint8_t* out) {
  const PlaneReader reader(*table);
  return decode_segments(
      segments, count,
      [&](std::size_t at, Lanes& lanes, SegmentStream& stream) {
        const Words symbols = reader.take(lanes, stream);
        vst1q_u8(out + at, vcombine_u8(vmovn_u16(symbols.part[0]), vmovn_u16(symbols.part[1])));
        vst1q_u8(out + at + 16, vcombine_u8(vmovn_u16(symbols.part[2]), vmovn_u16(symbols.part[3])));
      },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        for (std::size_t i = first; i < segment.count; ++i) {
          out[segment.begin + i] =
              static_cast<std::uint8_t>(scalar::byte_take(segment.states[i % kLanes], *table, words));
        }
      });
}

TEXTNLP_FAST_INLINE uint16x8_t join_bytes(uint16x8_t upper, uint16x8_t lower, bool rotate) {
  const uint16x8_t joined = vorrq_u16(vshlq_n_u16(upper, 8), lower);
  return rotate ? vorrq_u16(vshrq_n_u16(joined, 1), vshlq_n_u16(joined, 15)) : joined;
}

TEXTNLP_FAST_INLINE Words load_bytes(const std::uint8_t* bytes) {
  const uint8x16_t a = vld1q_u8(bytes);
  const uint8x16_t b = vld1q_u8(bytes + 16);
  return {{vmovl_u8(vget_low_u8(a)), vmovl_high_u8(a), vmovl_u8(vget_low_u8(b)), vmovl_high_u8(b)}};
}

bool bytes_decode_merge2(SegmentInput* segments, unsigned count, const ByteDecodeTable* table, bool rotate,
                         const std::uint8_t* lower, std::uint8_t* out) {
  const PlaneReader reader(*table);
  return decode_segments(
      segments, count,
      [&](std::size_t at, Lanes& lanes, SegmentStream& stream) {
        const Words symbols = reader.take(lanes, stream);
        Words joined = load_bytes(lower + at);
        for (unsigned r = 0; r < kRegisters; ++r) {
          joined.part[r] = join_bytes(symbols.part[r], joined.part[r], rotate);
        }
        store_elements(out, at, joined);
      },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        for (std::size_t i = first; i < segment.count; ++i) {
          const std::size_t at = segment.begin + i;
          const unsigned symbol = scalar::byte_take(segment.states[i % kLanes], *table, words);
          scalar::store<std::uint16_t>(out, at, scalar::join(symbol, lower[at], rotate));
        }
      });
}

void split_planes(unsigned element_size, bool rotate, const std::uint8_t* data, std::size_t count,
                  std::uint8_t* const* planes) {
  if (element_size != 2) {
    portable::split_planes(element_size, rotate, data, count, planes);
    return;
  }
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    uint16x8_t a = vreinterpretq_u16_u8(vld1q_u8(data + 2 * i));
    uint16x8_t b = vreinterpretq_u16_u8(vld1q_u8(data + 2 * i + 16));
    if (rotate) {
      a = vorrq_u16(vshlq_n_u16(a, 1), vshrq_n_u16(a, 15));
      b = vorrq_u16(vshlq_n_u16(b, 1), vshrq_n_u16(b, 15));
    }
    vst1q_u8(planes[0] + i, vuzp2q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b)));
    vst1q_u8(planes[1] + i, vuzp1q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b)));
  }
  std::uint8_t* const rest[2] = {planes[0] + i, planes[1] + i};
  portable::split_planes(2, rotate, data + 2 * i, count - i, rest);
}

void merge_planes(unsigned element_size, bool rotate, const std::uint8_t* const* planes, std::size_t count,
                  std::uint8_t* data) {
  if (element_size != 2) {
    portable::merge_planes(element_size, rotate, planes, count, data);
    return;
  }
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Words upper = load_bytes(planes[0] + i);
    Words joined = load_bytes(planes[1] + i);
    for (unsigned r = 0; r < kRegisters; ++r) joined.part[r] = join_bytes(upper.part[r], joined.part[r], rotate);
    store_elements(data, i, joined);
  }
  const std::uint8_t* const rest[2] = {planes[0] + i, planes[1] + i};
  portable::merge_planes(2, rotate, rest, count - i, data + 2 * i);
}

}  // namespace neon
}  // namespace
}  // namespace textnlp_fast

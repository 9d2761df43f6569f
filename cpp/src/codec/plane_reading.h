// What stands before the segments of a plane: docs/format.md, "Planes".
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/byte_reader.h"
#include "codec/table_reading.h"

namespace textnlp_fast {

enum PlaneKind : unsigned { kRawPlane = 0, kConstantPlane = 1, kCodedPlane = 2 };
constexpr unsigned kMaxPlanes = 8;
// Many rare symbols, which take a share each, are worth one bit more; slot_entry() holds shares up to 4096.
constexpr unsigned kFinePlaneLog = 13;
constexpr std::uint16_t kMostFineShare = 4096;

// Rotating left by one brings the exponent of a bfloat16, float32 or float64 to the top byte.
TEXTNLP_FAST_HD inline bool rotates(Dtype dtype) { return exponent_bits(dtype) != 0 && element_size(dtype) > 1; }

struct PlaneHead {
  unsigned kind;
  const std::uint8_t* raw;  // the bytes of a raw plane
  std::uint8_t constant;
  unsigned table_log;
};

// Fills the shares of a coded plane, whose segments follow; false if what is read is not valid.
TEXTNLP_FAST_HD inline bool read_plane_head(ByteReader& reader, std::size_t count, PlaneHead& head,
                                            std::uint16_t* freq) {
  head.kind = reader.byte();
  if (head.kind == kRawPlane) {
    head.raw = reader.take(count);
    return !reader.failed;
  }
  if (head.kind == kConstantPlane) {
    head.constant = reader.byte();
    return !reader.failed;
  }
  head.table_log = reader.byte();
  if (head.kind != kCodedPlane || reader.failed || head.table_log < kMinTableLog || head.table_log > kFinePlaneLog) {
    return false;
  }
  BitReader bits(reader.at, static_cast<std::size_t>(reader.end - reader.at));
  if (!read_table(bits, freq, 256, head.table_log) || reader.take(bits.bytes()) == nullptr) return false;
  // Only a table of the finer log could hold such a share.
  for (unsigned s = 0; s < 256; ++s) {
    if (freq[s] > kMostFineShare) return false;
  }
  return true;
}

}  // namespace textnlp_fast

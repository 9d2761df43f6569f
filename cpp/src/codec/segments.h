// How a frame's elements are dealt out to segments, and where the parts of these lie.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codec/byte_reader.h"
#include "codec/codec_kernels.h"

namespace textnlp_fast {

// Elements of every segment but the last: a multiple of kLanes.
TEXTNLP_FAST_HD inline std::size_t segment_length(std::size_t count, unsigned segments) noexcept {
  const std::size_t even = (count + segments - 1) / segments;
  return (even + kLanes - 1) / kLanes * kLanes;
}

// Reads what SegmentWriter wrote; false (and reader.failed) if it does not fit.
TEXTNLP_FAST_HD inline bool read_segments(ByteReader& reader, std::size_t count, SegmentInput* segments,
                                          unsigned* segment_count) {
  const unsigned announced = reader.byte();
  if (reader.failed || announced == 0 || announced > kMaxSegments) {
    reader.failed = true;
    return false;
  }
  const std::size_t length = segment_length(count, announced);
  unsigned read = 0;
  for (std::size_t begin = 0; begin < count; begin += length) {
    SegmentInput& segment = segments[read++];
    const std::uint64_t words = reader.varint();
    const std::uint8_t* const states = reader.take(sizeof segment.states);
    const std::uint8_t* const data = reader.take(words * 2);
    if (reader.failed) return false;
    std::memcpy(segment.states, states, sizeof segment.states);
    for (const std::uint32_t state : segment.states) {
      if (state < kStateFloor) {
        reader.failed = true;
        return false;
      }
    }
    segment.words = data;
    segment.end = data + words * 2;
    segment.begin = begin;
    segment.count = count - begin < length ? count - begin : length;
  }
  *segment_count = read;
  return read == announced;
}

}  // namespace textnlp_fast

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

// Where the parts of a segment lie.
struct SegmentParts {
  const std::uint8_t* states;  // kLanes of 4 bytes
  const std::uint8_t* words;
  const std::uint8_t* end;
  std::size_t begin;  // elements
  std::size_t count;
};

// Reads what SegmentWriter wrote, up to the states; false (and reader.failed) if it does not fit.
TEXTNLP_FAST_HD inline bool read_segment_parts(ByteReader& reader, std::size_t count, SegmentParts* segments,
                                               unsigned* segment_count) {
  const unsigned announced = reader.byte();
  if (reader.failed || announced == 0 || announced > kMaxSegments) {
    reader.failed = true;
    return false;
  }
  const std::size_t length = segment_length(count, announced);
  unsigned read = 0;
  for (std::size_t begin = 0; begin < count; begin += length) {
    SegmentParts& segment = segments[read++];
    const std::uint64_t words = reader.varint();
    segment.states = reader.take(sizeof(std::uint32_t) * kLanes);
    segment.words = reader.take(words * 2);
    if (reader.failed) return false;
    segment.end = segment.words + words * 2;
    segment.begin = begin;
    segment.count = count - begin < length ? count - begin : length;
  }
  *segment_count = read;
  return read == announced;
}

// The states too.
inline bool read_segments(ByteReader& reader, std::size_t count, SegmentInput* segments, unsigned* segment_count) {
  SegmentParts parts[kMaxSegments];
  if (!read_segment_parts(reader, count, parts, segment_count)) return false;
  for (unsigned s = 0; s < *segment_count; ++s) {
    SegmentInput& segment = segments[s];
    std::memcpy(segment.states, parts[s].states, sizeof segment.states);
    for (const std::uint32_t state : segment.states) {
      if (state < kStateFloor) {
        reader.failed = true;
        return false;
      }
    }
    segment.words = parts[s].words;
    segment.end = parts[s].end;
    segment.begin = parts[s].begin;
    segment.count = parts[s].count;
  }
  return true;
}

}  // namespace textnlp_fast

// Frame headers and the parts that delta and plane frames share: segments of lanes and words.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/codec_kernels.h"
#include "textnlp_fast/codec.h"

namespace textnlp_fast {

// Appends little-endian base-128.
void put_varint(std::vector<std::uint8_t>& out, std::uint64_t value);

// A cursor over hostile bytes. A failed read keeps failing; `at` says where.
struct ByteReader {
  const std::uint8_t* begin;
  const std::uint8_t* at;
  const std::uint8_t* end;
  bool failed = false;

  std::uint8_t byte();
  std::uint64_t varint();
  const std::uint8_t* take(std::uint64_t size);
  [[nodiscard]] std::uint64_t position() const { return static_cast<std::uint64_t>(at - begin); }
};

void put_frame_header(std::vector<std::uint8_t>& out, FrameMode mode, Dtype dtype, std::size_t decoded_size,
                      std::size_t body_size);

// Segments for `count` elements: one where little is coded, more where decoding profits from independent streams.
unsigned choose_segments(std::size_t count, bool sparse) noexcept;

// Elements of every segment but the last: a multiple of kLanes.
std::size_t segment_length(std::size_t count, unsigned segments) noexcept;

// Room for the words of a segment, written from the end downwards, kept between calls of a thread.
struct WordScratch {
  std::vector<std::uint16_t> words;
  std::uint16_t* end(std::size_t capacity);
};

// Runs `encode(begin, count, &output)` on every segment and appends count, lengths, states and words.
template <class Encode>
void put_segments(std::vector<std::uint8_t>& out, std::size_t count, unsigned segments, std::size_t words_an_element,
                  WordScratch& scratch, const Encode& encode);

void put_segment(std::vector<std::uint8_t>& out, const SegmentOutput& segment, const std::uint16_t* end);

// Reads what put_segments wrote; false (and reader.failed) if it does not fit.
bool read_segments(ByteReader& reader, std::size_t count, SegmentInput* segments, unsigned* segment_count);

template <class Encode>
void put_segments(std::vector<std::uint8_t>& out, std::size_t count, unsigned segments, std::size_t words_an_element,
                  WordScratch& scratch, const Encode& encode) {
  const std::size_t length = segment_length(count, segments);
  out.push_back(static_cast<std::uint8_t>(segments));
  for (std::size_t begin = 0; begin < count; begin += length) {
    const std::size_t here = count - begin < length ? count - begin : length;
    std::uint16_t* const end = scratch.end(here * words_an_element);
    SegmentOutput output;
    output.words = end;
    encode(begin, here, &output);
    put_segment(out, output, end);
  }
}

// The frame bodies. encode_* append to `out` and return false if the result would not be smaller than `limit` bytes.
bool encode_delta(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                  std::size_t limit, std::vector<std::uint8_t>& out);
bool encode_planes(Dtype dtype, const std::uint8_t* target, std::size_t size, std::size_t limit,
                   std::vector<std::uint8_t>& out);
bool decode_delta(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size);
bool decode_planes(Dtype dtype, ByteReader& reader, std::uint8_t* out, std::size_t size);

}  // namespace textnlp_fast

// Frame headers and the parts that delta and plane frames share: segments of lanes and words.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/bits.h"
#include "codec/byte_reader.h"
#include "codec/codec_kernels.h"
#include "codec/segment_choice.h"
#include "codec/segments.h"
#include "textnlp_fast/codec.h"

namespace textnlp_fast {

constexpr std::size_t kBodySizeBytes = 3;
// Version, element type, a varint of up to four bytes, the body's size.
constexpr std::size_t kMaxHeader = 6 + kBodySizeBytes;

TEXTNLP_FAST_HD inline bool has_body_size(FrameMode mode) { return mode != FrameMode::same && mode != FrameMode::raw; }

// Bytes of the header of a frame with a body, and the header itself. `body_size` is below 2^24.
TEXTNLP_FAST_HD inline std::size_t frame_header_size(FrameMode mode, std::size_t decoded_size) noexcept {
  std::size_t size = 3 + (has_body_size(mode) ? kBodySizeBytes : 0);
  for (; decoded_size >= 0x80; decoded_size >>= 7) ++size;
  return size;
}

TEXTNLP_FAST_HD inline void put_frame_header(Sink& out, FrameMode mode, Dtype dtype, std::size_t decoded_size,
                                             std::size_t body_size) {
  out.byte(static_cast<std::uint8_t>(kFrameVersion << 4 | static_cast<unsigned>(mode)));
  out.byte(static_cast<std::uint8_t>(dtype));
  out.varint(decoded_size);
  if (has_body_size(mode)) out.bytes(&body_size, kBodySizeBytes);
}

// Calls visit(from, to, info) for each frame of a payload that decodes to `size` bytes: where it begins in the payload
// and in the tensor. Stops at the first failure.
template <class Visit>
Status walk_frames(const std::uint8_t* payload, std::size_t payload_size, std::size_t size, const Visit& visit) {
  std::size_t from = 0;
  std::size_t to = 0;
  while (from < payload_size) {
    FrameInfo info;
    Status status = read_frame_header(payload + from, payload_size - from, &info);
    if (status.ok() && info.encoded_size > payload_size - from) {
      status = Status::failure(Code::truncated, "the payload ends inside a frame", payload_size - from);
    }
    if (status.ok() && info.decoded_size > size - to) {
      status = Status::failure(Code::corrupt, "the frames decode to more bytes than the tensor has");
    }
    if (status.ok()) status = visit(from, to, info);
    if (!status.ok()) {
      status.position += from;
      return status;
    }
    from += info.encoded_size;
    to += info.decoded_size;
  }
  if (to != size) {
    return Status::failure(Code::truncated, "the frames decode to fewer bytes than the tensor has", payload_size);
  }
  return {};
}

constexpr const char* kNoBase = "the payload is a delta: pass the base tensor it was made against";

inline bool needs_base(FrameMode mode) { return mode != FrameMode::raw && mode != FrameMode::planes; }

// Room for the words of a frame's segments, each written from its end downwards; kept between calls of a thread.
class SegmentWriter {
 public:
  // Lays out `segments` over `count` elements that take at most `words_an_element` words each.
  SegmentOutput* prepare(std::size_t count, unsigned segments, std::size_t words_an_element);

  // Appends count, lengths, states and words.
  void write(Sink& out) const;

 private:
  std::vector<std::uint16_t> words_;
  SegmentOutput segments_[kMaxSegments];
  const std::uint16_t* ends_[kMaxSegments];
  unsigned count_ = 0;
};

// Tensors of up to so many elements are coded as sparse and as delta frames, for the shorter.
constexpr std::size_t kSmallTensor = std::size_t{1} << 14;

// The frame bodies. encode_* write to `out` and return false if they see that the body will not fit.
bool encode_delta(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                  std::size_t limit, Sink& out);
// Also false where a delta frame will do better: much has changed. `learned`: the body is that of a learned frame.
bool encode_sparse(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                   std::size_t limit, Sink& out, bool& learned);
bool encode_planes(Dtype dtype, const std::uint8_t* target, std::size_t size, std::size_t limit, Sink& out);
// The difference of bytes, as planes; for integers of one byte only.
TEXTNLP_FAST_HD inline bool has_difference(Dtype dtype) noexcept {
  return element_size(dtype) == 1 && exponent_bits(dtype) == 0;
}
bool encode_difference(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                       std::size_t limit, Sink& out);

// False if the body is not valid; the reader then stands near the fault.
bool decode_delta(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size);
// `out` may be `base`.
bool decode_sparse(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size);
bool decode_learned(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size);
bool decode_planes(Dtype dtype, ByteReader& reader, std::uint8_t* out, std::size_t size);
// `out` may be `base`.
bool decode_difference(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size);

}  // namespace textnlp_fast

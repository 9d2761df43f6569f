#include "codec/frame.h"

#include <cstring>

#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

Status read_frame_header(const std::uint8_t* payload, std::size_t size, FrameInfo* info) noexcept {
  ByteReader reader{payload, payload, payload + size};
  const unsigned first = reader.byte();
  if (reader.failed) return Status::failure(Code::truncated, "the frame header is cut short", size);
  if (first >> 4 != kFrameVersion) {
    return Status::failure(Code::unsupported, "the frame has a format version that this build does not know", 0);
  }
  const unsigned mode = first & 15;
  if (mode > static_cast<unsigned>(FrameMode::learned)) {
    return Status::failure(Code::unsupported, "the frame has a mode that this build does not know", 0);
  }
  const unsigned dtype = reader.byte();
  if (reader.failed) return Status::failure(Code::truncated, "the frame header is cut short", size);
  if (dtype >= kDtypeCount) return Status::failure(Code::unsupported, "the frame has an unknown element type", 1);
  info->mode = static_cast<FrameMode>(mode);
  info->dtype = static_cast<Dtype>(dtype);
  const std::uint64_t decoded = reader.varint();
  std::uint64_t body = 0;
  if (info->mode == FrameMode::raw) body = decoded;
  if (has_body_size(info->mode)) {
    const std::uint8_t* const bytes = reader.take(kBodySizeBytes);
    if (bytes != nullptr) std::memcpy(&body, bytes, kBodySizeBytes);
  }
  if (reader.truncated) return Status::failure(Code::truncated, "the frame header is cut short", size);
  if (reader.failed) return Status::failure(Code::corrupt, "the frame header is malformed", reader.position());
  if (decoded == 0 || decoded > kMaxFrameSize) {
    return Status::failure(Code::corrupt, "the frame's decoded size is out of range", 2);
  }
  if (decoded % element_size(info->dtype) != 0) {
    return Status::failure(Code::corrupt, "the frame's decoded size is not a multiple of its element size", 2);
  }
  // A coded body is never worth more than raw.
  if (body > decoded) return Status::failure(Code::corrupt, "the frame's body is larger than what it decodes to", 2);
  info->header_size = static_cast<std::size_t>(reader.position());
  info->encoded_size = info->header_size + static_cast<std::size_t>(body);
  info->decoded_size = static_cast<std::size_t>(decoded);
  return {};
}

SegmentOutput* SegmentWriter::prepare(std::size_t count, unsigned segments, std::size_t words_an_element) {
  const std::size_t length = segment_length(count, segments);
  count_ = 0;
  if (words_.size() < count * words_an_element) words_.resize(count * words_an_element);
  for (std::size_t begin = 0; begin < count; begin += length) {
    SegmentOutput& segment = segments_[count_];
    segment.begin = begin;
    segment.count = count - begin < length ? count - begin : length;
    segment.words = words_.data() + (begin + segment.count) * words_an_element;
    ends_[count_++] = segment.words;
  }
  return segments_;
}

void SegmentWriter::write(Sink& out) const {
  out.byte(static_cast<std::uint8_t>(count_));
  for (unsigned s = 0; s < count_; ++s) {
    const SegmentOutput& segment = segments_[s];
    const auto words = static_cast<std::size_t>(ends_[s] - segment.words);
    out.varint(words);
    out.bytes(segment.states, sizeof segment.states);
    out.bytes(segment.words, words * 2);
  }
}

Status list_frames(const std::uint8_t* payload, std::size_t payload_size, const std::uint8_t* payload_dev,
                   const std::uint8_t* base_dev, std::uint8_t* out_dev, std::size_t size, DeviceFrame* frames,
                   std::size_t capacity, std::size_t* count) noexcept {
  *count = 0;
  bool lacks_base = false;
  const Status status =
      walk_frames(payload, payload_size, size, [&](std::size_t from, std::size_t to, const FrameInfo& info) {
        const bool needs = needs_base(info.mode);
        lacks_base = lacks_base || (needs && base_dev == nullptr);
        if (*count == capacity) {
          return Status::failure(Code::invalid_argument, "there are more frames than room for them");
        }
        frames[(*count)++] = {payload_dev + from + info.header_size,
                              needs && base_dev != nullptr ? base_dev + to : nullptr,
                              out_dev + to,
                              static_cast<std::uint32_t>(info.encoded_size - info.header_size),
                              static_cast<std::uint32_t>(info.decoded_size),
                              info.mode,
                              info.dtype};
        return Status{};
      });
  // Damaged headers come first, as in decode().
  return status.ok() && lacks_base ? Status::failure(Code::invalid_argument, kNoBase) : status;
}

}  // namespace textnlp_fast

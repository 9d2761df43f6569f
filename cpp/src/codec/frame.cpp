#include "codec/frame.h"

#include <cstring>

namespace textnlp_fast {

void put_varint(std::vector<std::uint8_t>& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<std::uint8_t>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<std::uint8_t>(value));
}

std::uint8_t ByteReader::byte() {
  if (at == end) failed = true;
  return failed ? std::uint8_t{0} : *at++;
}

std::uint64_t ByteReader::varint() {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 35; shift += 7) {
    const std::uint8_t next = byte();
    value |= static_cast<std::uint64_t>(next & 0x7f) << shift;
    if ((next & 0x80) == 0) {
      // One number has one form: no trailing zero group.
      if (next == 0 && shift != 0) failed = true;
      return value;
    }
  }
  failed = true;
  return 0;
}

const std::uint8_t* ByteReader::take(std::uint64_t size) {
  if (failed || size > static_cast<std::uint64_t>(end - at)) {
    failed = true;
    return nullptr;
  }
  const std::uint8_t* const from = at;
  at += size;
  return from;
}

void put_frame_header(std::vector<std::uint8_t>& out, FrameMode mode, Dtype dtype, std::size_t decoded_size,
                      std::size_t body_size) {
  out.push_back(static_cast<std::uint8_t>(kFrameVersion << 4 | static_cast<unsigned>(mode)));
  out.push_back(static_cast<std::uint8_t>(dtype));
  put_varint(out, decoded_size);
  if (mode == FrameMode::planes || mode == FrameMode::delta) put_varint(out, body_size);
}

Status read_frame_header(const std::uint8_t* payload, std::size_t size, FrameInfo* info) noexcept {
  ByteReader reader{payload, payload, payload + size};
  const unsigned first = reader.byte();
  if (!reader.failed && first >> 4 != kFrameVersion) {
    return Status::failure(Code::unsupported, "the frame has a format version that this build does not know", 0);
  }
  const unsigned mode = first & 15;
  if (mode > static_cast<unsigned>(FrameMode::delta)) {
    return Status::failure(Code::unsupported, "the frame has a mode that this build does not know", 0);
  }
  const unsigned dtype = reader.byte();
  if (dtype >= kDtypeCount) return Status::failure(Code::unsupported, "the frame has an unknown element type", 1);
  info->mode = static_cast<FrameMode>(mode);
  info->dtype = static_cast<Dtype>(dtype);
  const std::uint64_t decoded = reader.varint();
  std::uint64_t body = 0;
  if (info->mode == FrameMode::raw) body = decoded;
  if (info->mode == FrameMode::planes || info->mode == FrameMode::delta) body = reader.varint();
  if (reader.failed) return Status::failure(Code::corrupt, "the frame header is cut short or malformed", size);
  if (decoded == 0 || decoded > kMaxFrameSize) {
    return Status::failure(Code::corrupt, "the frame's decoded size is out of range", 2);
  }
  // A coded body is never worth more than raw.
  if (body > decoded) return Status::failure(Code::corrupt, "the frame's body is larger than what it decodes to", 2);
  info->header_size = static_cast<std::size_t>(reader.position());
  info->encoded_size = info->header_size + static_cast<std::size_t>(body);
  info->decoded_size = static_cast<std::size_t>(decoded);
  return {};
}

unsigned choose_segments(std::size_t count, bool sparse) noexcept {
  if (sparse) return 1;
  const std::size_t wanted = count >> 16;
  return wanted < 1 ? 1 : wanted > 4 ? 4 : static_cast<unsigned>(wanted);
}

std::size_t segment_length(std::size_t count, unsigned segments) noexcept {
  const std::size_t even = (count + segments - 1) / segments;
  return (even + kLanes - 1) / kLanes * kLanes;
}

std::uint16_t* WordScratch::end(std::size_t capacity) {
  // 64 words of slack below: vector kernels store whole registers.
  if (words.size() < capacity + 64) words.resize(capacity + 64);
  return words.data() + words.size();
}

void put_segment(std::vector<std::uint8_t>& out, const SegmentOutput& segment, const std::uint16_t* end) {
  const auto words = static_cast<std::size_t>(end - segment.words);
  put_varint(out, words);
  const std::size_t at = out.size();
  out.resize(at + sizeof segment.states + words * 2);
  std::memcpy(out.data() + at, segment.states, sizeof segment.states);
  std::memcpy(out.data() + at + sizeof segment.states, segment.words, words * 2);
}

bool read_segments(ByteReader& reader, std::size_t count, SegmentInput* segments, unsigned* segment_count) {
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

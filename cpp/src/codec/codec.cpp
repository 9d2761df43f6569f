// Checks, threads and the choice of a mode per frame.
#include "textnlp_fast/codec.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "codec/frame.h"
#include "codec/frame_choice.h"
#include "cpu/kernels.h"
#include "thread/in_order.h"

namespace textnlp_fast {
namespace {

bool overlaps(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size) {
  const auto first = reinterpret_cast<std::uintptr_t>(a);
  const auto second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_size && second < first + a_size;
}

// Room for a second body, to be weighed against the first; kept between calls of a thread.
std::uint8_t* rival_room(std::size_t size) {
  thread_local std::vector<std::uint8_t> room;
  if (room.size() < size) room.resize(size);
  return room.data();
}

// The shortest body so far, at `body`; none yet where the mode is raw.
struct Body {
  std::uint8_t* body;
  std::size_t size;
  FrameMode mode = FrameMode::raw;
  Dtype dtype;
  std::size_t best;

  // `encode(limit, sink)` writes a body and says whether it is below the limit.
  template <class Encode>
  void weigh(FrameMode as, Dtype under, const Encode& encode) {
    const bool weighed = mode != FrameMode::raw;
    std::uint8_t* const to = weighed ? rival_room(size) : body;
    Sink sink(to, size);
    if (!encode(best, sink)) return;
    best = sink.size();
    mode = as;
    dtype = under;
    if (weighed) std::memcpy(body, to, best);
  }

  void weigh_difference(Dtype under, const std::uint8_t* target, const std::uint8_t* base) {
    if (!has_difference(under) || rarely_changed(best, size)) return;
    weigh(FrameMode::difference, under,
          [&](std::size_t limit, Sink& sink) { return encode_difference(under, target, base, size, limit, sink); });
  }

  void weigh_against(Dtype under, const std::uint8_t* target, const std::uint8_t* base) {
    const std::size_t before = best;
    bool learned = false;
    weigh(FrameMode::sparse, under, [&](std::size_t limit, Sink& sink) {
      return encode_sparse(under, target, base, size, limit, sink, learned);
    });
    const bool sparse = best != before;
    if (sparse && learned) mode = FrameMode::learned;
    weigh_difference(under, target, base);
    if (sparse && size > kSmallTensor * element_size(under)) return;
    weigh(FrameMode::delta, under,
          [&](std::size_t limit, Sink& sink) { return encode_delta(under, target, base, size, limit, sink); });
  }

  void weigh_alone(Dtype under, const std::uint8_t* target) {
    weigh(FrameMode::planes, under,
          [&](std::size_t limit, Sink& sink) { return encode_planes(under, target, size, limit, sink); });
  }
};

// Whether the lowest bytes of wide floats stay, as they do where narrower ones were widened: a sample says so.
bool lowest_bytes_stay(const std::uint8_t* target, const std::uint8_t* base, std::size_t size, std::size_t element) {
  const std::size_t count = size / element;
  const std::size_t every = lowest_byte_stride(count);
  for (std::size_t i = 0; i < count; i += every) {
    if (target[i * element] != base[i * element]) return false;
  }
  return true;
}

// Whether a frame's elements may be more alike as bytes: words of packed numbers, and floats of few bits.
bool may_be_bytes(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size) {
  const std::size_t element = element_size(dtype);
  if (element == 1) return false;
  if (exponent_bits(dtype) == 0) return true;
  return base != nullptr && element > 2 && lowest_bytes_stay(target, base, size, element);
}

// Encodes one frame at `out`, which has room for the raw frame and a header; returns the bytes written.
std::size_t encode_frame(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                         std::uint8_t* out) {
  Sink frame(out, size + kMaxHeader);
  if (base != nullptr && std::memcmp(target, base, size) == 0) {
    put_frame_header(frame, FrameMode::same, dtype, size, 0);
    return frame.size();
  }
  const std::size_t header = frame_header_size(FrameMode::delta, size);
  // A frame must come out smaller than a raw one, whose header is shorter.
  const std::size_t limit = size - (header - frame_header_size(FrameMode::raw, size));
  Body body{out + header, size, FrameMode::raw, dtype, limit};
  const bool as_bytes = may_be_bytes(dtype, target, base, size);
  if (base != nullptr) {
    if (as_bytes) body.weigh_against(Dtype::u8, target, base);
    body.weigh_against(dtype, target, base);
  }
  if (!clearly_delta(dtype, body.best, size)) {
    body.weigh_alone(dtype, target);
    if (as_bytes) body.weigh_alone(Dtype::u8, target);
  }
  put_frame_header(frame, body.mode, body.dtype, size, body.best);
  if (body.mode != FrameMode::raw) return header + body.best;
  frame.bytes(target, size);
  return frame.size();
}

Status decode_frame(const std::uint8_t* frame, const FrameInfo& info, const std::uint8_t* base, std::uint8_t* out) {
  const std::uint8_t* const body = frame + info.header_size;
  const std::size_t size = info.decoded_size;
  if (info.mode == FrameMode::raw) {
    std::memcpy(out, body, size);
    return {};
  }
  if (needs_base(info.mode) && base == nullptr) {
    return Status::failure(Code::invalid_argument, kNoBase);
  }
  if (info.mode == FrameMode::same) {
    if (out != base) std::memcpy(out, base, size);
    return {};
  }
  ByteReader reader{body, body, frame + info.encoded_size};
  const bool whole = info.mode == FrameMode::delta        ? decode_delta(info.dtype, reader, base, out, size)
                     : info.mode == FrameMode::sparse     ? decode_sparse(info.dtype, reader, base, out, size)
                     : info.mode == FrameMode::learned    ? decode_learned(info.dtype, reader, base, out, size)
                     : info.mode == FrameMode::difference ? decode_difference(info.dtype, reader, base, out, size)
                                                          : decode_planes(info.dtype, reader, out, size);
  if (!whole) {
    return Status::failure(Code::corrupt, "the frame does not decode", info.header_size + reader.position());
  }
  return {};
}

struct FramePlace {
  std::size_t from;  // in the payload
  std::size_t to;    // in the output
  FrameInfo info;
};

}  // namespace

std::size_t encode_bound(std::size_t size, std::size_t frame_size) noexcept {
  if (frame_size == 0) return 0;
  return size + (size + frame_size - 1) / frame_size * kMaxHeader;
}

Status encode(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
              const EncodeOptions& options, std::uint8_t* out, std::size_t capacity, std::size_t* written) noexcept {
  const std::size_t frame_size = options.frame_size;
  const std::size_t element = element_size(dtype);
  *written = 0;
  if (element == 0) return Status::failure(Code::invalid_argument, "unknown element type");
  if (frame_size == 0 || frame_size % 64 != 0 || frame_size > kMaxFrameSize) {
    return Status::failure(Code::invalid_argument, "the frame size must be a multiple of 64 and at most 16 MiB");
  }
  if (size % element != 0) {
    return Status::failure(Code::invalid_argument, "the size in bytes is not a multiple of the element size");
  }
  if (capacity < encode_bound(size, frame_size)) {
    return Status::failure(Code::invalid_argument, "the output is smaller than encode_bound()");
  }
  if (overlaps(out, capacity, target, size) || (base != nullptr && overlaps(out, capacity, base, size))) {
    return Status::failure(Code::invalid_argument, "the output overlaps the input");
  }
  const std::size_t frames = (size + frame_size - 1) / frame_size;
  try {
    const auto encode_at = [&](std::size_t index, std::uint8_t* to) {
      const std::size_t from = index * frame_size;
      return encode_frame(dtype, target + from, base == nullptr ? nullptr : base + from,
                          std::min(frame_size, size - from), to);
    };
    std::size_t at = 0;
    if (frames == 1 || options.threads == 1) {
      for (std::size_t index = 0; index < frames; ++index) at += encode_at(index, out + at);
      *written = at;
      return {};
    }
    // What is coded stays in the cache of the core that coded it until it is known where it goes.
    constexpr std::size_t kMostScratch = std::size_t{64} << 20;
    const std::size_t stride = frame_size + kMaxHeader;
    const std::size_t workers = options.threads == 0 ? default_threads() : options.threads;
    const std::size_t slots = std::min({frames, 2 * workers, std::max<std::size_t>(2, kMostScratch / stride)});
    thread_local std::vector<std::uint8_t> scratch;
    if (scratch.size() < slots * stride) scratch.resize(slots * stride);
    std::uint8_t* const coded = scratch.data();
    std::vector<std::size_t> sizes(slots);
    std::atomic<bool> out_of_memory{false};
    parallel_in_order(
        frames, options.threads, slots,
        [&](std::size_t index, std::size_t slot) {
          try {
            sizes[slot] = encode_at(index, coded + slot * stride);
          } catch (const std::bad_alloc&) {
            out_of_memory = true;
            sizes[slot] = 0;
          }
        },
        [&](std::size_t, std::size_t slot) {
          std::memcpy(out + at, coded + slot * stride, sizes[slot]);
          at += sizes[slot];
        });
    if (out_of_memory) return Status::failure(Code::out_of_memory, "no memory to encode a frame");
    *written = at;
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory to encode");
  }
  return {};
}

Status decode(const std::uint8_t* payload, std::size_t payload_size, const std::uint8_t* base, std::uint8_t* out,
              std::size_t size, unsigned threads) noexcept {
  if (base != nullptr && base != out && overlaps(base, size, out, size)) {
    return Status::failure(Code::invalid_argument, "the output overlaps the base without being it");
  }
  if (overlaps(payload, payload_size, out, size)) {
    return Status::failure(Code::invalid_argument, "the output overlaps the payload");
  }
  try {
    std::vector<FramePlace> places;
    Status status =
        walk_frames(payload, payload_size, size, [&](std::size_t from, std::size_t to, const FrameInfo& info) {
          places.push_back({from, to, info});
          return Status{};
        });
    if (!status.ok()) return status;
    std::vector<Status> results(places.size());
    parallel_for(places.size(), threads, [&](std::size_t index) {
      const FramePlace& place = places[index];
      try {
        results[index] =
            decode_frame(payload + place.from, place.info, base == nullptr ? nullptr : base + place.to, out + place.to);
      } catch (const std::bad_alloc&) {
        results[index] = Status::failure(Code::out_of_memory, "no memory to decode a frame");
      }
    });
    for (std::size_t index = 0; index < results.size(); ++index) {
      if (results[index].ok()) continue;
      results[index].position += places[index].from;
      return results[index];
    }
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory to decode");
  }
  return {};
}

}  // namespace textnlp_fast

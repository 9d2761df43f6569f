// The codec: tensors to frames and back, bit-exactly. docs/format.md states every byte.
//
// A tensor is cut into frames of `frame_size` decoded bytes. Each frame stands alone: it is the same as the base, raw,
// standalone (byte planes, each under its own entropy code), a delta (the difference to the base in ULPs, coded by rANS
// under the table that the base's exponent picks), sparse (where little changed: the places apart from the
// differences), learned (the same where so little did that tables would show), or a difference (byte planes of target
// less base, byte by byte). Predict, take the difference, code it
// in the context of what the reader already knows.
#pragma once
#include <cstddef>
#include <cstdint>

#include "textnlp_fast/dtype.h"
#include "textnlp_fast/status.h"

namespace textnlp_fast {

enum class FrameMode : std::uint8_t {
  same = 0,
  raw = 1,
  planes = 2,
  delta = 3,
  sparse = 4,
  difference = 5,
  learned = 6
};
inline constexpr unsigned kFrameVersion = 1;
inline constexpr std::size_t kDefaultFrameSize = std::size_t{1} << 20;
// A reader refuses frames that decode to more: the most memory a hostile frame can ask for.
inline constexpr std::size_t kMaxFrameSize = std::size_t{1} << 24;

struct FrameInfo {
  FrameMode mode;
  Dtype dtype;
  std::size_t header_size;   // bytes
  std::size_t encoded_size;  // bytes, header included
  std::size_t decoded_size;  // bytes
};

struct EncodeOptions {
  std::size_t frame_size = kDefaultFrameSize;  // bytes; a multiple of 64, at most kMaxFrameSize
  unsigned threads = 0;                        // 0: as many as the process may use
};

// Bytes that encode() may need for `size` bytes of input.
std::size_t encode_bound(std::size_t size, std::size_t frame_size) noexcept;

// Encodes `size` bytes of elements of `dtype` into consecutive frames at `out`. `base` is null or holds `size` bytes of
// the same dtype, which decode() will need too; `out` overlaps neither. `*written` receives the encoded bytes. The same
// input gives the same bytes on every processor, whatever the threads.
Status encode(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
              const EncodeOptions& options, std::uint8_t* out, std::size_t capacity, std::size_t* written) noexcept;

// Reads the frame header at `payload`. `position` of a failure counts from `payload`. A header that goes on past the
// end of `payload` fails with Code::truncated.
Status read_frame_header(const std::uint8_t* payload, std::size_t size, FrameInfo* info) noexcept;

// Decodes whole frames that together make exactly `size` bytes. `base` is null or holds `size` bytes; `out` may be
// `base`, else the three must not overlap. On failure `out` holds nothing of use.
Status decode(const std::uint8_t* payload, std::size_t payload_size, const std::uint8_t* base, std::uint8_t* out,
              std::size_t size, unsigned threads) noexcept;

struct DiffStats {
  std::uint64_t elements = 0;
  std::uint64_t changed = 0;
  std::uint64_t max_ulp = 0;  // largest |difference| in representable steps; integers count in units
  double sum_ulp = 0;         // sum of |difference| over all elements
};

// Compares two tensors of one dtype element by element.
Status diff(Dtype dtype, const std::uint8_t* a, const std::uint8_t* b, std::size_t size, unsigned threads,
            DiffStats* stats) noexcept;

}  // namespace textnlp_fast

// A cursor over hostile bytes.
#pragma once
#include <cstdint>

#include "codec/host_device.h"

namespace textnlp_fast {

// A failed read keeps failing; `at` says where, `truncated` that the bytes ran out.
struct ByteReader {
  const std::uint8_t* begin;
  const std::uint8_t* at;
  const std::uint8_t* end;
  bool failed = false;
  bool truncated = false;

  TEXTNLP_FAST_HD std::uint8_t byte() {
    if (at == end && !failed) failed = truncated = true;
    return failed ? std::uint8_t{0} : *at++;
  }

  TEXTNLP_FAST_HD std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
      const std::uint8_t next = byte();
      if (failed) return 0;
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

  TEXTNLP_FAST_HD const std::uint8_t* take(std::uint64_t size) {
    if (!failed && size > static_cast<std::uint64_t>(end - at)) failed = truncated = true;
    if (failed) return nullptr;
    const std::uint8_t* const from = at;
    at += size;
    return from;
  }

  [[nodiscard]] TEXTNLP_FAST_HD std::uint64_t position() const { return static_cast<std::uint64_t>(at - begin); }
};

}  // namespace textnlp_fast

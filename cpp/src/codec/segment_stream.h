// The words of a segment for vector kernels, which read ahead.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace textnlp_fast {
namespace {

// Up to kAhead bytes past `at` may be read at any time: near the end the rest moves to a padded copy, where running
// past the end is seen and harmless.
struct SegmentStream {
  static constexpr std::ptrdiff_t kAhead = 256;
  const std::uint8_t* at;
  const std::uint8_t* safe;  // while at <= safe, kAhead bytes can be read
  const std::uint8_t* end;
  bool in_tail;
  std::uint8_t tail[2 * kAhead];

  void open(const std::uint8_t* begin, const std::uint8_t* finish) {
    at = begin;
    end = finish;
    in_tail = false;
    if (finish - begin >= kAhead) {
      safe = finish - kAhead;
    } else {
      settle();
    }
  }

  // To be called before a step that takes at most 128 bytes; false once the stream has run over.
  inline __attribute__((always_inline)) bool ready() {
    if (__builtin_expect(at <= safe, 1)) return true;
    return settle();
  }

  __attribute__((noinline)) bool settle() {
    if (in_tail) return false;
    const auto left = static_cast<std::size_t>(end - at);
    std::memset(tail, 0, sizeof tail);
    std::memcpy(tail, at, left);
    at = tail;
    end = tail + left;
    safe = end;
    in_tail = true;
    return true;
  }

  [[nodiscard]] bool overrun() const { return at > end; }
};

}  // namespace
}  // namespace textnlp_fast

// Bytes into a bounded buffer; bits, least significant first; the Exp-Golomb codes of the table headers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codec/host_device.h"
#include "codec/tokens.h"

namespace textnlp_fast {

// Writes that do not fit are dropped and set full(): callers check once at the end.
class Sink {
 public:
  TEXTNLP_FAST_HD Sink(std::uint8_t* begin, std::size_t capacity) : begin_(begin), at_(begin), end_(begin + capacity) {}

  TEXTNLP_FAST_HD void byte(std::uint8_t value) {
    if (at_ == end_) {
      full_ = true;
    } else {
      *at_++ = value;
    }
  }

  TEXTNLP_FAST_HD void bytes(const void* data, std::size_t size) {
    if (size > static_cast<std::size_t>(end_ - at_)) {
      full_ = true;
    } else if (size != 0) {
      std::memcpy(at_, data, size);
      at_ += size;
    }
  }

  // Little-endian base-128.
  TEXTNLP_FAST_HD void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) byte(static_cast<std::uint8_t>(value | 0x80));
    byte(static_cast<std::uint8_t>(value));
  }

  [[nodiscard]] TEXTNLP_FAST_HD bool full() const { return full_; }
  [[nodiscard]] TEXTNLP_FAST_HD std::size_t size() const { return static_cast<std::size_t>(at_ - begin_); }

 private:
  std::uint8_t* begin_;
  std::uint8_t* at_;
  std::uint8_t* end_;
  bool full_ = false;
};

class BitWriter {
 public:
  TEXTNLP_FAST_HD explicit BitWriter(Sink& out) : out_(out) {}

  TEXTNLP_FAST_HD void put(std::uint32_t value, unsigned bits) {
    pending_ |= static_cast<std::uint64_t>(value) << filled_;
    filled_ += bits;
    while (filled_ >= 8) {
      out_.byte(static_cast<std::uint8_t>(pending_));
      pending_ >>= 8;
      filled_ -= 8;
    }
  }

  // Exp-Golomb of order `order`: value + 2^order in binary, preceded by as many zeros as it has bits beyond order + 1.
  TEXTNLP_FAST_HD void put_golomb(std::uint32_t value, unsigned order) {
    const std::uint32_t shifted = value + (1u << order);
    const unsigned bits = floor_log2(shifted) + 1;
    const unsigned extra = bits - 1 - order;
    put(0, extra);
    put(1, 1);
    if (bits > 1) put(shifted & ((1u << (bits - 1)) - 1), bits - 1);
  }

  TEXTNLP_FAST_HD void finish() {
    if (filled_ > 0) put(0, 8 - filled_);
  }

  TEXTNLP_FAST_HD static unsigned golomb_bits(std::uint32_t value, unsigned order) {
    const unsigned bits = floor_log2(value + (1u << order)) + 1;
    return 2 * bits - 1 - order;
  }

 private:
  Sink& out_;
  std::uint64_t pending_ = 0;
  unsigned filled_ = 0;
};

// Reads past the end give zeros and set overrun(): callers check once at the end.
class BitReader {
 public:
  TEXTNLP_FAST_HD BitReader(const std::uint8_t* data, std::size_t size) : next_(data), left_(size) {}

  // Up to 32.
  TEXTNLP_FAST_HD std::uint32_t get(unsigned bits) {
    if (bits == 0 || !hold(bits)) return 0;
    const auto value = static_cast<std::uint32_t>(window_ & ((std::uint64_t{1} << bits) - 1));
    drop(bits);
    return value;
  }

  TEXTNLP_FAST_HD std::uint32_t get_golomb(unsigned order) {
    hold(kMostExtra + 1, false);
    unsigned extra = 0;
    while (extra < held_ && extra <= kMostExtra && (window_ >> extra & 1) == 0) ++extra;
    if (extra >= held_ || extra > kMostExtra) {
      overrun_ = true;
      return 0;
    }
    drop(extra + 1);
    const unsigned below = order + extra;
    return ((1u << below) | get(below)) - (1u << order);
  }

  [[nodiscard]] TEXTNLP_FAST_HD bool overrun() const { return overrun_; }
  // Bytes touched so far.
  [[nodiscard]] TEXTNLP_FAST_HD std::size_t bytes() const { return (taken_ + 7) / 8; }

 private:
  static constexpr unsigned kMostExtra = 16;

  // False if there are no more than that.
  TEXTNLP_FAST_HD bool hold(unsigned bits, bool must = true) {
    while (held_ < bits && left_ != 0) {
      window_ |= static_cast<std::uint64_t>(*next_++) << held_;
      held_ += 8;
      --left_;
    }
    if (held_ >= bits) return true;
    overrun_ = overrun_ || must;
    return false;
  }

  TEXTNLP_FAST_HD void drop(unsigned bits) {
    window_ >>= bits;
    held_ -= bits;
    taken_ += bits;
  }

  const std::uint8_t* next_;
  std::size_t left_;  // bytes
  std::uint64_t window_ = 0;
  unsigned held_ = 0;  // bits in the window
  std::size_t taken_ = 0;
  bool overrun_ = false;
};

}  // namespace textnlp_fast

// Bytes into a bounded buffer; bits, least significant first; the Exp-Golomb codes of the table headers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace textnlp_fast {

// Writes that do not fit are dropped and set full(): callers check once at the end.
class Sink {
 public:
  Sink(std::uint8_t* begin, std::size_t capacity) : begin_(begin), at_(begin), end_(begin + capacity) {}

  void byte(std::uint8_t value) {
    if (at_ == end_) {
      full_ = true;
    } else {
      *at_++ = value;
    }
  }

  void bytes(const void* data, std::size_t size) {
    if (size > static_cast<std::size_t>(end_ - at_)) {
      full_ = true;
    } else if (size != 0) {
      std::memcpy(at_, data, size);
      at_ += size;
    }
  }

  // Little-endian base-128.
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) byte(static_cast<std::uint8_t>(value | 0x80));
    byte(static_cast<std::uint8_t>(value));
  }

  [[nodiscard]] bool full() const { return full_; }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(at_ - begin_); }

 private:
  std::uint8_t* begin_;
  std::uint8_t* at_;
  std::uint8_t* end_;
  bool full_ = false;
};

class BitWriter {
 public:
  explicit BitWriter(Sink& out) : out_(out) {}

  void put(std::uint32_t value, unsigned bits) {
    pending_ |= static_cast<std::uint64_t>(value) << filled_;
    filled_ += bits;
    while (filled_ >= 8) {
      out_.byte(static_cast<std::uint8_t>(pending_));
      pending_ >>= 8;
      filled_ -= 8;
    }
  }

  // Exp-Golomb of order `order`: value + 2^order in binary, preceded by as many zeros as it has bits beyond order + 1.
  void put_golomb(std::uint32_t value, unsigned order) {
    const std::uint32_t shifted = value + (1u << order);
    const unsigned bits = 32u - static_cast<unsigned>(__builtin_clz(shifted));
    const unsigned extra = bits - 1 - order;
    put(0, extra);
    put(1, 1);
    if (bits > 1) put(shifted & ((1u << (bits - 1)) - 1), bits - 1);
  }

  void finish() {
    if (filled_ > 0) put(0, 8 - filled_);
  }

  static unsigned golomb_bits(std::uint32_t value, unsigned order) {
    const unsigned bits = 32u - static_cast<unsigned>(__builtin_clz(value + (1u << order)));
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
  BitReader(const std::uint8_t* data, std::size_t size) : data_(data), bits_(size * 8) {}

  std::uint32_t get(unsigned bits) {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < bits; ++i) value |= bit() << i;
    return value;
  }

  std::uint32_t get_golomb(unsigned order) {
    unsigned extra = 0;
    while (bit() == 0) {
      if (++extra > 16 || overrun_) {
        overrun_ = true;
        return 0;
      }
    }
    const unsigned below = order + extra;
    return ((1u << below) | get(below)) - (1u << order);
  }

  [[nodiscard]] bool overrun() const { return overrun_; }
  // Bytes touched so far.
  [[nodiscard]] std::size_t bytes() const { return (at_ + 7) / 8; }

 private:
  std::uint32_t bit() {
    if (at_ >= bits_) {
      overrun_ = true;
      return 0;
    }
    const std::uint32_t value = (data_[at_ >> 3] >> (at_ & 7)) & 1u;
    ++at_;
    return value;
  }

  const std::uint8_t* data_;
  std::size_t bits_;
  std::size_t at_ = 0;
  bool overrun_ = false;
};

}  // namespace textnlp_fast

// Two 64-bit rANS states that take turns, with 32-bit renormalisation (Duda, arXiv:1311.2540): for symbols that come
// one by one, whose shares are worked out on the way. The cost of an end is 8 bytes, where 32 lanes take 64.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "codec/bits.h"
#include "codec/byte_reader.h"

namespace textnlp_fast {

constexpr std::uint64_t kPairFloor = std::uint64_t{1} << 31;
constexpr std::size_t kPairStateBytes = 16;
// Bits that a state can begin with, and end with where it is read.
constexpr unsigned kHeldBits = 31;

// Keeps symbols in the reader's order, then codes them from the last to the first.
class PairWriter {
 public:
  void clear() { symbols_.clear(); }
  [[nodiscard]] std::size_t size() const { return symbols_.size(); }
  // Drops the last ones.
  void resize(std::size_t size) { symbols_.resize(size); }

  // A symbol with the share [start, start + freq) of 2^log.
  void put(std::uint32_t start, std::uint32_t freq, unsigned log) { symbols_.push_back({start, freq, log}); }

  // Up to 16 bits.
  void put_bits(std::uint32_t value, unsigned bits) { put(value, 1, bits); }

  // Appends the states, the number of words and the words. The states hold up to 2 * kHeldBits bits, the lower ones in
  // that whose turn comes after the last symbol.
  void write(Sink& out, std::uint64_t held = 0);

 public:
  struct Symbol {
    std::uint32_t start;
    std::uint32_t freq;
    std::uint32_t log;
  };
  std::vector<Symbol> symbols_;
  std::vector<std::uint32_t> words_;
};

// Reads hostile words: past the end it reads zeros and remembers.
struct PairReader {
  std::uint64_t state;  // whose turn it is
  std::uint64_t other;
  const std::uint8_t* at;
  const std::uint8_t* end;
  bool overrun;

  [[nodiscard]] TEXTNLP_FAST_HD std::uint32_t slot(unsigned log) const {
    return static_cast<std::uint32_t>(state) & ((std::uint32_t{1} << log) - 1);
  }

  // Takes a symbol of the slot that slot() gave: `offset` is the slot's place in the symbol's share.
  TEXTNLP_FAST_HD void take(std::uint32_t offset, std::uint32_t freq, unsigned log) {
    std::uint64_t next = freq * (state >> log) + offset;
    state = other;
    if (next < kPairFloor) next = next << 32 | word();
    other = next;
  }

  TEXTNLP_FAST_HD void advance(std::uint32_t start, std::uint32_t freq, unsigned log) {
    take(slot(log) - start, freq, log);
  }

  TEXTNLP_FAST_HD std::uint32_t bits(unsigned count) {
    const std::uint32_t value = slot(count);
    advance(value, 1, count);
    return value;
  }

  // Whether all was read, so that the states are those that the writer began with.
  [[nodiscard]] TEXTNLP_FAST_HD bool used_up() const {
    return !overrun && at == end && state >> kHeldBits == 1 && other >> kHeldBits == 1;
  }

  // What these hold.
  [[nodiscard]] TEXTNLP_FAST_HD std::uint64_t held() const {
    return (state - kPairFloor) | (other - kPairFloor) << kHeldBits;
  }

  [[nodiscard]] TEXTNLP_FAST_HD bool finished() const { return used_up() && held() == 0; }

 private:
  TEXTNLP_FAST_HD std::uint32_t word() {
    std::uint32_t next = 0;
    if (end - at >= 4) {
      std::memcpy(&next, at, sizeof next);
      at += sizeof next;
    } else {
      overrun = true;
    }
    return next;
  }
};

// Reads what PairWriter wrote, up to the words, which are left to `pair`.
TEXTNLP_FAST_HD inline bool open_pair(ByteReader& reader, PairReader& pair) {
  const std::uint8_t* const states = reader.take(kPairStateBytes);
  const std::uint64_t words = reader.varint();
  const std::uint8_t* const data = reader.take(words * sizeof(std::uint32_t));
  if (reader.failed) return false;
  std::memcpy(&pair.state, states, sizeof pair.state);
  std::memcpy(&pair.other, states + sizeof pair.state, sizeof pair.other);
  pair.at = data;
  pair.end = data + words * sizeof(std::uint32_t);
  pair.overrun = false;
  return pair.state >= kPairFloor && pair.other >= kPairFloor && (pair.state | pair.other) >> 63 == 0;
}

}  // namespace textnlp_fast

// One step of range asymmetric numeral systems (Duda, arXiv:1311.2540) with 32-bit states and 16-bit renormalisation.
// A state lives in [2^16, 2^32). Thirty-two lanes take turns: element i belongs to lane i % 32, and all lanes share one
// word stream, read in lane order, so a warp, two AVX-512 registers or a plain loop decode the same bytes.
#pragma once
#include <cstdint>

#include "codec/ordered.h"

namespace textnlp_fast {

constexpr unsigned kLanes = 32;
constexpr std::uint32_t kStateFloor = std::uint32_t{1} << 16;

// A symbol's share [start, start + freq) of 2^table_log.
struct EncodeSymbol {
  std::uint16_t freq;  // 0: never coded
  std::uint16_t start;
};

namespace {

// Emits the word that keeps the state in range, then codes the symbol. `words` points past where the next word goes:
// the stream is written from its end to its front.
inline std::uint32_t rans_put(std::uint32_t state, std::uint32_t freq, std::uint32_t start, unsigned table_log,
                              std::uint16_t*& words) {
  if ((state >> (32 - table_log)) >= freq) {
    *--words = static_cast<std::uint16_t>(state);
    state >>= 16;
  }
  return ((state / freq) << table_log) + start + state % freq;
}

inline std::uint32_t rans_put_raw(std::uint32_t state, std::uint32_t value, unsigned bits, std::uint16_t*& words) {
  if ((std::uint64_t{state} << bits) >> 32 != 0) {
    *--words = static_cast<std::uint16_t>(state);
    state >>= 16;
  }
  return (state << bits) | value;
}

// The words of one segment, with a bound that hostile input cannot pass: past the end it reads zeros and remembers.
struct WordReader {
  const std::uint8_t* cursor;
  const std::uint8_t* end;
  bool overrun;

  std::uint32_t next() {
    if (end - cursor < 2) {
      overrun = true;
      return 0;
    }
    const std::uint32_t word = static_cast<std::uint32_t>(cursor[0]) | static_cast<std::uint32_t>(cursor[1]) << 8;
    cursor += 2;
    return word;
  }
};

inline std::uint32_t rans_refill(std::uint32_t state, WordReader& words) {
  return state < kStateFloor ? (state << 16) | words.next() : state;
}

}  // namespace
}  // namespace textnlp_fast

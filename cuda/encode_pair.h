// The pair of a sparse frame: symbols in the reader's order, then coded from the last to the first.
#pragma once
#include "codec/chance.h"
#include "cuda/encode_team.h"

namespace textnlp_fast::device {

// A symbol in a word: its kind in the upper two bits.
enum SymbolKind : std::uint32_t { kBitSymbol = 0, kRawSymbol = 1, kTableSymbol = 2, kPlaceSymbol = 3 };
constexpr unsigned kKindShift = 30;

TEXTNLP_FAST_DEVICE std::uint32_t bit_symbol(Chance& chance, bool bit) {
  const std::uint32_t word = chance.share() | (bit ? 1u << kBitLog : 0);
  chance.learn(bit);
  return word;
}

TEXTNLP_FAST_DEVICE std::uint32_t raw_symbol(std::uint32_t value, unsigned bits) {
  return kRawSymbol << kKindShift | bits << 16 | value;
}

TEXTNLP_FAST_DEVICE std::uint32_t table_symbol(EncodeSymbol symbol) {
  return kTableSymbol << kKindShift | static_cast<std::uint32_t>(symbol.start) << 12 | symbol.freq;
}

TEXTNLP_FAST_DEVICE std::uint32_t place_symbol(std::uint32_t number) { return kPlaceSymbol << kKindShift | number; }

TEXTNLP_FAST_DEVICE PairStep step_of(std::uint32_t word, const std::uint64_t* places) {
  PairStep step{0, 0, 1, 0};
  switch (word >> kKindShift) {
    case kBitSymbol: {
      const std::uint32_t one = word & 0xffff;
      const bool bit = (word >> kBitLog & 1) != 0;
      step.start = bit ? 0 : one;
      step.freq = bit ? one : (1u << kBitLog) - one;
      step.log = kBitLog;
      break;
    }
    case kRawSymbol:
      step.start = word & 0xffff;
      step.log = word >> 16 & 31;
      break;
    case kTableSymbol:
      step.start = word >> 12 & 0x7fff;
      step.freq = word & 0xfff;
      step.log = kDeltaTableLog;
      break;
    default: {
      const std::uint64_t place = places[word & 0x3fffffff];
      step.start = static_cast<std::uint32_t>(place) & (kPlaceScale - 1);
      step.freq = static_cast<std::uint32_t>(place >> kPlaceLog) + 1;
      step.log = kPlaceLog;
    }
  }
  step.inverse = ~std::uint64_t{0} / step.freq;
  return step;
}

TEXTNLP_FAST_DEVICE std::uint64_t high_product(std::uint64_t a, std::uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
#endif
}

// Codes the symbols: one chain, which one lane follows, while the others of its warp look up what comes next; other
// frames run beside it. The states begin with the bits of `held`, as in PairWriter. Leaves states and the number of
// words, which end where the room for them does. By one warp.
TEXTNLP_FAST_DEVICE_CALL void put_pair(const Encoding& encoding, std::uint64_t held = 0) {
  EncodeShared& shared = encoding.shared;
  PairStep* const steps = shared.pair_steps;
  // A pair that takes more than the raw frame is of no use.
  const auto room = static_cast<std::uint32_t>(encoding.size / sizeof(std::uint32_t));
  auto* const words = reinterpret_cast<std::uint32_t*>(encoding.room.words);
  std::uint32_t first = room;
  const std::uint64_t next = kPairFloor | (held & (kPairFloor - 1));
  const std::uint64_t other = kPairFloor | held >> kHeldBits;
  const bool swapped = shared.symbols % 2 != 0;
  std::uint64_t states[2] = {swapped ? other : next, swapped ? next : other};
  bool full = false;
  for (std::uint32_t left = shared.symbols; left != 0;) {
    const std::uint32_t here = left < simt::kWarp ? left : simt::kWarp;
    if (simt::lane() < here) {
      steps[simt::lane()] = step_of(encoding.room.symbols[left - 1 - simt::lane()], encoding.room.places);
    }
    simt::sync_warp();
    for (std::uint32_t n = 0; n < here && simt::lane() == 0; ++n) {
      const PairStep step = steps[n];
      const bool odd = ((left - 1 - n) & 1) != 0;
      std::uint64_t state = odd ? states[1] : states[0];
      if (state >= static_cast<std::uint64_t>(step.freq) << (63 - step.log)) {
        if (first == 0) {
          full = true;
        } else {
          words[--first] = static_cast<std::uint32_t>(state);
        }
        state >>= 32;
      }
      // The inverse is at most one too low, and the state below 2^63: so is the quotient.
      std::uint64_t quotient = high_product(state, step.inverse);
      std::uint64_t rest = state - quotient * step.freq;
      if (rest >= step.freq) {
        ++quotient;
        rest -= step.freq;
      }
      state = (quotient << step.log) + rest + step.start;
      (odd ? states[1] : states[0]) = state;
    }
    simt::sync_warp();
    left -= here;
  }
  if (simt::lane() != 0) return;
  shared.pair_states[0] = states[0];
  shared.pair_states[1] = states[1];
  shared.pair_words = full ? room + 1 : room - first;
}

// Writes the pair behind what `out` has, but for the words, whose place it keeps; by one thread. False if it is full.
TEXTNLP_FAST_DEVICE bool lay_pair(const Encoding& encoding, Sink& out) {
  EncodeShared& shared = encoding.shared;
  out.bytes(shared.pair_states, sizeof shared.pair_states);
  out.varint(shared.pair_words);
  shared.pair_at = static_cast<std::uint32_t>(out.size());
  return !out.full() && out.size() + sizeof(std::uint32_t) * shared.pair_words <= encoding.size;
}

TEXTNLP_FAST_DEVICE_CALL void copy_pair(const Encoding& encoding) {
  const std::size_t bytes = sizeof(std::uint32_t) * encoding.shared.pair_words;
  const std::size_t end = encoding.size / sizeof(std::uint32_t) * sizeof(std::uint32_t);
  copy_shifted(encoding.room.words + (end - bytes), encoding.body() + encoding.shared.pair_at, bytes, simt::thread(),
               kEncodeThreads);
}

}  // namespace textnlp_fast::device

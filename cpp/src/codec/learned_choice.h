// What a learned frame would take, from the counts of its tokens alone. Shared with the CUDA twin: doubles are worked
// with one by one.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/delta_choice.h"
#include "codec/learned.h"
#include "codec/sparse_choice.h"

namespace textnlp_fast {

// Symbols of the pair for each element, at most: sizes that go through many buckets take long, however few their bits.
constexpr std::size_t kLearnedSymbols = 4;
// What telling values in lanes takes besides them: the room of 32 states, their number and that of the words. And what
// table log and coder take.
constexpr double kLanesBits = 8 * 66;
constexpr double kTablesBits = 8 * 2;

namespace choice {

// What `zeros` bits 0 and `ones` bits 1 take under a chance that learns them, about: what their share says, and half a
// bit for each doubling of their number.
TEXTNLP_FAST_HD inline double learning_bits(std::int64_t zeros, std::int64_t ones) {
  const auto all = static_cast<std::uint64_t>(zeros + ones);
  if (all == 0) return 0;
  const double learning = 0.5 * log2_of(all);
  if (zeros == 0 || ones == 0) return learning + 0.825;
  double bits = static_cast<double>(all) * log2_of(all);
  bits -= static_cast<double>(zeros) * log2_of(static_cast<std::uint64_t>(zeros));
  bits -= static_cast<double>(ones) * log2_of(static_cast<std::uint64_t>(ones));
  return bits + learning + 0.325;
}

// Counts of a context.
struct ChangeCounts {
  std::int64_t stayed = 0;
  std::int64_t ones = 0;     // in bucket 1
  std::int64_t larger = 0;   // than bucket 1
  std::int64_t further = 0;  // buckets that these are beyond bucket 2
  std::int64_t symbols = 0;  // of sizes and raw bits

  ChangeCounts() = default;
  TEXTNLP_FAST_HD ChangeCounts(const std::uint32_t* counts, TokenScheme scheme) {
    stayed = counts[0];
    for (unsigned t = 1; t < kMaxTokens; ++t) {
      const std::int64_t count = counts[t];
      if (count == 0) continue;
      const unsigned bucket = bucket_of(t);
      (bucket == 1 ? ones : larger) += count;
      if (bucket > 2) further += count * (bucket - 2);
      symbols += count * (bucket + (raw_bits_of(t, scheme) + 15) / 16);
    }
  }

  [[nodiscard]] TEXTNLP_FAST_HD std::int64_t changed() const { return ones + larger; }
  [[nodiscard]] TEXTNLP_FAST_HD double sizes() const {
    return learning_bits(ones, larger) + learning_bits(larger, further);
  }
};

// The bits of values and signs, those less that the states hold; 0 if there are too many. `raw`: bits that follow the
// buckets.
template <class Team>
TEXTNLP_FAST_HD_CALL double learned_bits(const Team& team, const DeltaModel& model, unsigned listed, std::size_t total,
                                         double raw) {
  if (total > kMostLearned) return 0;
  double bits = raw;
  std::int64_t changed = 0;
  std::int64_t symbols = 0;
  ChangeCounts cold;
  for (unsigned first = 0; first < model.rule.contexts; first += Team::kSize) {
    const unsigned c = first + team.lane();
    double term = 0;
    if (c < model.rule.contexts) {
      const ChangeCounts counts(model.counts[c], model.rule.scheme);
      changed += counts.changed();
      symbols += counts.symbols;
      if (c < listed) {
        symbols += counts.stayed + counts.changed();
        term = learning_bits(counts.stayed, counts.changed()) + counts.sizes();
      } else {
        cold.ones += counts.ones;
        cold.larger += counts.larger;
        cold.further += counts.further;
      }
    }
    bits = team.in_order(bits, term);
  }
  if (static_cast<std::size_t>(team.sum(symbols)) > kLearnedSymbols * total) return 0;
  cold.ones = team.sum(cold.ones);
  cold.larger = team.sum(cold.larger);
  cold.further = team.sum(cold.further);
  changed = team.sum(changed);
  const std::int64_t held = changed < kSignsInStates ? changed : kSignsInStates;
  bits += cold.sizes();
  bits += static_cast<double>(changed - held);
  return bits > 1 ? bits : 1;  // 0 would say that it cannot be
}

// Whether these bits are fewer than those under tables.
TEXTNLP_FAST_HD inline bool better_learned(double learned, double under_tables, std::size_t total) {
  const double tables = under_tables + kTablesBits + (total > kMostPaired ? kLanesBits : 0);
  return learned != 0 && learned < tables;
}

}  // namespace choice
}  // namespace textnlp_fast

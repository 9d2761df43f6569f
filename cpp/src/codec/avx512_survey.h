// The first look at a delta frame on AVX-512: how often each token occurs.
#pragma once
#include "codec/avx512_residuals.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

unsigned largest_lane(__m512i words) {
  alignas(64) std::uint16_t lanes[kLanes];
  _mm512_store_si512(lanes, words);
  unsigned largest = 0;
  for (const std::uint16_t lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

constexpr unsigned kTokenBits = 6;

// Counts of row << kTokenBits | token. Four tables in turn, for an increment waits for the one before it to the
// same address; small counters keep them all in the first-level cache and are emptied before they can wrap.
template <unsigned kRows>
struct Cells {
  static constexpr unsigned kCount = kRows << kTokenBits;
  static constexpr unsigned kTables = 4;
  static constexpr unsigned kStepsToFull = 65535 / (kLanes / kTables);
  std::uint16_t cells[kTables][kCount];
  unsigned steps;

  void clear() {
    std::memset(cells, 0, sizeof cells);
    steps = 0;
  }

  void flush(TokenCounts* counts) {
    for (unsigned row = 0; row < kRows; ++row) {
      for (unsigned t = 0; t < 1u << kTokenBits; ++t) {
        const unsigned cell = row << kTokenBits | t;
        counts[row][t] += cells[0][cell] + cells[1][cell] + cells[2][cell] + cells[3][cell];
      }
    }
    clear();
  }

  // Of a step.
  TEXTNLP_FAST_INLINE void add(const std::uint64_t* packed, TokenCounts* counts) {
#pragma GCC unroll 8
    for (unsigned word = 0; word < 8; ++word) {
      const std::uint64_t four = packed[word];
      ++cells[0][four & 0xffff];
      ++cells[1][(four >> 16) & 0xffff];
      ++cells[2][(four >> 32) & 0xffff];
      ++cells[3][four >> 48];
    }
    if (++steps == kStepsToFull) flush(counts);
  }
};

// Counts whole steps, in the rows that `row_of` gives for elements of the base.
template <class Element, bool kFloat, unsigned kRowCount, class RowOf>
void count_steps(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const Tokenizer& tokenize,
                 TokenCounts* counts, const RowOf& row_of) {
  Cells<kRowCount> cells;
  cells.clear();
  constexpr std::size_t kBatch = 8;
  alignas(64) std::uint64_t packed[kBatch][8];
  for (std::size_t step = 0; step < steps;) {
    const std::size_t n = steps - step < kBatch ? steps - step : kBatch;
    for (std::size_t i = 0; i < n; ++i, ++step) {
      ask_ahead<Element>(base, step * kLanes);
      ask_ahead<Element>(target, step * kLanes);
      const __m512i from = Element::load(base, step * kLanes);
      const __m512i to = Element::load(target, step * kLanes);
      const Tokens tokens = tokenize.template operator()<false>(Element::template residual_between<kFloat>(to, from));
      _mm512_store_si512(packed[i], _mm512_or_si512(_mm512_slli_epi16(row_of(from), kTokenBits), tokens.token));
    }
    for (std::size_t i = 0; i < n; ++i) cells.add(packed[i], counts);
  }
  cells.flush(counts);
}

template <class Element, bool kFloat>
void histogram_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                     TokenCounts* counts) {
  const ContextOf context_of(rule);
  count_steps<Element, kFloat, kMaxContexts>(target, base, steps, Tokenizer(rule.scheme), counts,
                                             [&](__m512i from) TEXTNLP_FAST_INLINE_LAMBDA { return context_of(from); });
}

void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, TokenCounts* counts) {
  const std::size_t steps = count / kLanes;
  const bool is_float = rule->element.is_float;
  if (element_size == 2) {
    is_float ? histogram_dense<TwoBytes, true>(target, base, steps, *rule, counts)
             : histogram_dense<TwoBytes, false>(target, base, steps, *rule, counts);
    scalar::delta_histogram<std::uint16_t>(target, base, steps * kLanes, count, *rule, counts);
  } else if (element_size == 1) {
    is_float ? histogram_dense<OneByte, true>(target, base, steps, *rule, counts)
             : histogram_dense<OneByte, false>(target, base, steps, *rule, counts);
    scalar::delta_histogram<std::uint8_t>(target, base, steps * kLanes, count, *rule, counts);
  } else {
    portable::delta_histogram(element_size, target, base, count, rule, counts);
  }
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

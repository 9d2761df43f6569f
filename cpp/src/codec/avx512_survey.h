// The first look at a delta frame on AVX-512: what changed, where, and how often each token occurs.
#pragma once
#include "codec/avx512_residuals.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Packs the changed elements of every step that has any. Such steps are found by their bits, 64 at a time: a branch a
// step would be guessed wrong too often.
template <bool kFloat>
void pack_steps(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, ElementRule rule,
                const std::uint64_t* busy, SparseWork& work) {
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(rule.context_shift));
  const __m512i mask = set16(rule.context_mask);
  std::size_t packed = 0;
  for (std::size_t word = 0; word * 64 < steps; ++word) {
    for (std::uint64_t left = busy[word]; left != 0; left &= left - 1) {
      const std::size_t step = word * 64 + static_cast<unsigned>(__builtin_ctzll(left));
      const __mmask32 changed = work.masks[step];
      const __m512i from = load16(base, step * kLanes);
      const __m512i to = load16(target, step * kLanes);
      const __m512i field = _mm512_and_si512(_mm512_srl_epi16(from, shift), mask);
      const __m512i residual = residual_between<kFloat>(to, from);
      _mm512_storeu_si512(work.residual + packed, _mm512_maskz_compress_epi16(changed, residual));
      _mm512_storeu_si512(work.field + packed, _mm512_maskz_compress_epi16(changed, field));
      packed += static_cast<unsigned>(__builtin_popcount(changed));
    }
  }
}

unsigned largest_lane(__m512i value) {
  alignas(64) std::uint16_t lanes[kLanes];
  _mm512_store_si512(lanes, value);
  unsigned largest = 0;
  for (const std::uint16_t lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

__attribute__((noinline)) unsigned max_context(const std::uint8_t* base, std::size_t steps, ElementRule rule) {
  const __m512i mask = set16(rule.context_mask << rule.context_shift);
  __m512i most = _mm512_setzero_si512();
  for (std::size_t step = 0; step < steps; ++step) {
    most = _mm512_max_epu16(most, _mm512_and_si512(load16(base, step * kLanes), mask));
  }
  return largest_lane(most) >> rule.context_shift;
}

void survey_steps(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, ElementRule rule,
                  SparseWork& work, DeltaSurvey& survey) {
  // A piece at a time, so that packing finds it in the first-level cache.
  constexpr std::size_t kPieceSteps = 128;
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(rule.context_shift));
  const __m512i mask = set16(rule.context_mask);
  __m512i most = _mm512_setzero_si512();
  std::size_t packed = 0;
  std::size_t piece = 0;
  // Past the capacity the frame is dense, whatever follows.
  for (; piece < steps && packed <= work.capacity; piece += kPieceSteps) {
    const std::size_t end = steps - piece < kPieceSteps ? steps : piece + kPieceSteps;
    std::uint64_t busy[kPieceSteps / 64] = {};
    std::size_t changed_here = 0;
    for (std::size_t step = piece; step < end; ++step) {
      const __m512i from = load16(base, step * kLanes);
      const __m512i field = _mm512_and_si512(_mm512_srl_epi16(from, shift), mask);
      most = _mm512_max_epu16(most, field);
      const __mmask32 changed = _mm512_cmpneq_epi16_mask(load16(target, step * kLanes), from);
      work.masks[step] = changed;
      busy[(step - piece) / 64] |= static_cast<std::uint64_t>(changed != 0 ? 1 : 0) << (step % 64);
      changed_here += static_cast<unsigned>(__builtin_popcount(changed));
      if (step % kSampleSteps == 0) {
        // Changed lanes go where nobody looks: no branch depends on them.
        alignas(64) std::uint16_t sample[kLanes];
        _mm512_store_si512(sample, _mm512_mask_mov_epi16(field, changed, set16(kMaxContextField)));
        for (const std::uint16_t one : sample) survey.unchanged[one] += kSampleSteps;
      }
    }
    if (packed + changed_here <= work.capacity) {
      SparseWork rest = work;
      rest.residual += packed;
      rest.field += packed;
      rest.masks += piece;
      const std::size_t offset = 2 * piece * kLanes;
      rule.is_float ? pack_steps<true>(target + offset, base + offset, end - piece, rule, busy, rest)
                    : pack_steps<false>(target + offset, base + offset, end - piece, rule, busy, rest);
    }
    packed += changed_here;
  }
  work.packed = packed;
  survey.changed = packed;
  survey.max_context = largest_lane(most);
  if (piece >= steps) return;
  const unsigned rest = max_context(base + 2 * piece * kLanes, steps - piece, rule);
  survey.max_context = rest > survey.max_context ? rest : survey.max_context;
}

void delta_survey(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                  ElementRule rule, SparseWork* work, DeltaSurvey* survey) {
  if (element_size != 2) {
    portable::delta_survey(element_size, target, base, count, rule, work, survey);
    return;
  }
  std::memset(survey, 0, sizeof *survey);
  const std::size_t steps = count / kLanes;
  survey_steps(target, base, steps, rule, *work, *survey);
  scalar::delta_survey<std::uint16_t>(target, base, steps * kLanes, count, rule, *survey);
}

// Counts of context << kTokenBits | token. Four tables in turn, for an increment waits for the one before it to the
// same address; small counters keep them all in the first-level cache and are emptied before they can wrap.
template <unsigned kTokenBits>
struct Cells {
  static constexpr unsigned kCount = kMaxContexts << kTokenBits;
  static constexpr unsigned kTables = 4;
  static constexpr unsigned kStepsToFull = 65535 / (kLanes / kTables);
  std::uint16_t cells[kTables][kCount];
  unsigned steps;

  void clear() {
    std::memset(cells, 0, sizeof cells);
    steps = 0;
  }

  void flush(TokenCounts* counts) {
    for (unsigned c = 0; c < kMaxContexts; ++c) {
      for (unsigned t = 0; t < 1u << kTokenBits; ++t) {
        const unsigned cell = c << kTokenBits | t;
        counts[c][t] += cells[0][cell] + cells[1][cell] + cells[2][cell] + cells[3][cell];
      }
    }
    clear();
  }

  TEXTNLP_FAST_INLINE void add(__m512i index, TokenCounts* counts) {
    alignas(64) std::uint64_t packed[8];
    _mm512_store_si512(packed, index);
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

template <bool kFloat>
void histogram_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                     TokenCounts* counts) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  Cells<6> cells;
  cells.clear();
  for (std::size_t step = 0; step < steps; ++step) {
    const __m512i from = load16(base, step * kLanes);
    const __m512i to = load16(target, step * kLanes);
    const Tokens tokens = tokenize.template operator()<false>(residual_between<kFloat>(to, from));
    cells.add(_mm512_or_si512(_mm512_slli_epi16(context_of(from), 6), tokens.token), counts);
  }
  cells.flush(counts);
}

// The packed elements, thirty-two at a time.
void histogram_packed(const DeltaRule& rule, SparseWork& work, TokenCounts* counts) {
  const Tokenizer tokenize(rule.scheme);
  const __m512i first = set16(rule.context_base);
  const __m512i last = set16(rule.contexts - 1);
  work.has_raw = false;
  for (std::size_t i = 0; i < work.packed; i += kLanes) {
    const Tokens tokens = tokenize.template operator()<true>(_mm512_loadu_si512(work.residual + i));
    const __m512i context = _mm512_min_epu16(_mm512_subs_epu16(_mm512_loadu_si512(work.field + i), first), last);
    _mm512_storeu_si512(work.index + i, _mm512_or_si512(_mm512_slli_epi16(context, 7), tokens.token));
    _mm512_storeu_si512(work.raw_bits + i, tokens.raw_bits);
    const std::size_t left = work.packed - i < kLanes ? work.packed - i : kLanes;
    const __mmask32 raw = _mm512_test_epi16_mask(tokens.raw_bits, tokens.raw_bits);
    work.raw_lanes[i / kLanes] = _bzhi_u32(raw, static_cast<unsigned>(left));
    work.has_raw = work.has_raw || work.raw_lanes[i / kLanes] != 0;
    for (std::size_t lane = 0; lane < left; ++lane) {
      const unsigned index = work.index[i + lane];
      ++counts[index >> 7][index & 127];
    }
  }
}

void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, SparseWork* work, TokenCounts* counts) {
  if (element_size != 2) {
    portable::delta_histogram(element_size, target, base, count, rule, work, counts);
    return;
  }
  const std::size_t steps = count / kLanes;
  if (work != nullptr) {
    histogram_packed(*rule, *work, counts);
  } else if (rule->element.is_float) {
    histogram_dense<true>(target, base, steps, *rule, counts);
  } else {
    histogram_dense<false>(target, base, steps, *rule, counts);
  }
  scalar::delta_histogram<std::uint16_t>(target, base, steps * kLanes, count, *rule, work != nullptr, counts);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

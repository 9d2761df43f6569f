// Encoding deltas of two-byte elements on AVX-512. Other sizes take the portable kernels.
#pragma once
#include "codec/avx512_survey.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Turns the packed tokens into symbols and raw bits for the encoder.
void prepare_packed(const DeltaRule& rule, const DeltaEncodeTables& tables, SparseWork& work) {
  const Tokenizer tokenize(rule.scheme);
  const __m512i last = set16(kMaxContexts * kMaxTokens - 1);
  for (std::size_t i = 0; i < work.packed; i += kLanes) {
    if (work.has_raw) {
      const Tokens tokens = tokenize.template operator()<true>(_mm512_loadu_si512(work.residual + i));
      _mm512_storeu_si512(work.residual + i, tokens.raw);
    }
    // The lanes past the end hold anything: keep them inside the table.
    const Symbols symbols =
        gather_symbols(tables.symbols[0], _mm512_min_epu16(_mm512_loadu_si512(work.index + i), last));
    _mm512_storeu_si512(work.index + i, symbols.freq);
    _mm512_storeu_si512(work.field + i, symbols.start);
  }
}

// Raw bits of a step, into the states.
TEXTNLP_FAST_INLINE void put_raw(WideLanes& lanes, const Tokens& tokens, std::uint16_t*& words) {
  const __m512i high = upper_halves(lanes);
  // Room for n bits: the upper half is below 2^(16 - n).
  const __mmask32 need = _mm512_test_epi16_mask(
      high, _mm512_sub_epi16(_mm512_setzero_si512(),
                             _mm512_srlv_epi16(set16(0x8000), _mm512_sub_epi16(tokens.raw_bits, set16(1)))));
  if (need != 0) spill(lanes, high, need, words);
  const WideLanes bits = widen(tokens.raw_bits);
  const WideLanes raw = widen(tokens.raw);
  lanes.even = _mm512_or_si512(_mm512_sllv_epi32(lanes.even, bits.even), raw.even);
  lanes.odd = _mm512_or_si512(_mm512_sllv_epi32(lanes.odd, bits.odd), raw.odd);
}

template <bool kFloat>
void encode_dense(const std::uint8_t* target, const std::uint8_t* base, const DeltaRule& rule,
                  const DeltaEncodeTables& tables, SegmentOutput* segments, unsigned segment_count) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  const Writer writer(rule.table_log);
  auto tail = [&](SegmentOutput& segment) {
    scalar::delta_put<std::uint16_t>(target + 2 * segment.begin, base + 2 * segment.begin,
                                     segment.count / kLanes * kLanes, segment.count, rule, tables, segment.states,
                                     segment.words);
  };
  encode_segments(segments, segment_count, tail, [&](std::size_t at, WideLanes& lanes, std::uint16_t*& words) {
    const __m512i from = load16(base, at);
    const __m512i to = load16(target, at);
    const Tokens tokens = tokenize.template operator()<true>(residual_between<kFloat>(to, from));
    const Symbols coded =
        gather_symbols(tables.symbols[0], _mm512_or_si512(_mm512_slli_epi16(context_of(from), 7), tokens.token));
    put_raw(lanes, tokens, words);
    writer.put_symbols<true>(lanes, coded.freq, coded.start, words);
  });
}

// Whether any of `count` (at most kLanes) packed elements has raw bits.
TEXTNLP_FAST_INLINE bool any_raw(const SparseWork& work, std::size_t packed, unsigned count) {
  std::uint64_t lanes;
  std::memcpy(&lanes, work.raw_lanes + packed / kLanes, sizeof lanes);
  return _bzhi_u64(lanes >> packed % kLanes, count) != 0;
}

// Unchanged lanes take token 0 of their context, found by permute; the changed ones are spread from `work`, where their
// symbols lie packed. No branch tells the two apart: it would be guessed wrong too often.
void encode_sparse(const std::uint8_t* target, const std::uint8_t* base, const DeltaRule& rule,
                   const DeltaEncodeTables& tables, const SparseWork& work, SegmentOutput* segments,
                   unsigned segment_count) {
  const ContextOf context_of(rule);
  const Writer writer(rule.table_log);
  alignas(64) std::uint16_t zero_freqs[kMaxContexts] = {};
  for (unsigned c = 0; c < rule.contexts; ++c) zero_freqs[c] = tables.symbols[c][0].freq;
  const __m512i zero_freq = _mm512_load_si512(zero_freqs);
  std::size_t packed = work.packed;
  for (unsigned s = segment_count; s-- > 0;) {
    auto tail = [&](SegmentOutput& segment) {
      scalar::delta_put<std::uint16_t>(target + 2 * segment.begin, base + 2 * segment.begin,
                                       segment.count / kLanes * kLanes, segment.count, rule, tables, segment.states,
                                       segment.words);
    };
    encode_ways<1>(segments + s, tail, [&](std::size_t at, WideLanes& lanes, std::uint16_t*& words) {
      const __mmask32 changed = work.masks[at / kLanes];
      const __m512i context = context_of(load16(base, at));
      const auto count = static_cast<unsigned>(__builtin_popcount(changed));
      packed -= count;
      if (work.has_raw && any_raw(work, packed, count)) {
        Tokens tokens;
        tokens.raw_bits = _mm512_maskz_expand_epi16(changed, _mm512_loadu_si512(work.raw_bits + packed));
        tokens.raw = _mm512_maskz_expand_epi16(changed, _mm512_loadu_si512(work.residual + packed));
        put_raw(lanes, tokens, words);
      }
      const __m512i freq = _mm512_mask_expand_epi16(_mm512_permutexvar_epi16(context, zero_freq), changed,
                                                    _mm512_loadu_si512(work.index + packed));
      const __m512i start = _mm512_maskz_expand_epi16(changed, _mm512_loadu_si512(work.field + packed));
      writer.put_symbols<false>(lanes, freq, start, words);
    });
  }
}

void delta_encode(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, const DeltaRule* rule,
                  const DeltaEncodeTables* tables, SparseWork* work, SegmentOutput* segments, unsigned segment_count) {
  if (element_size != 2 || rule->table_log < kMinVectorLog) {
    portable::delta_encode(element_size, target, base, rule, tables, work, segments, segment_count);
  } else if (work != nullptr) {
    prepare_packed(*rule, *tables, *work);
    encode_sparse(target, base, *rule, *tables, *work, segments, segment_count);
  } else if (rule->element.is_float) {
    encode_dense<true>(target, base, *rule, *tables, segments, segment_count);
  } else {
    encode_dense<false>(target, base, *rule, *tables, segments, segment_count);
  }
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

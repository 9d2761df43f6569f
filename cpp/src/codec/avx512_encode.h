// Encoding deltas of elements of one and two bytes on AVX-512. Other sizes take the portable kernels.
#pragma once
#include "codec/avx512_survey.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Raw bits of a step, into the states.
TEXTNLP_FAST_INLINE void put_raw(Lanes& lanes, __m512i raw_values, __m512i raw_bits, std::uint16_t*& words) {
  // Room for n bits, at most 15: the upper half is below 2^(16 - n).
  const __mmask32 need = _mm512_test_epi16_mask(
      lanes.high,
      _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_srlv_epi16(set16(0x8000), _mm512_sub_epi16(raw_bits, set16(1)))));
  if (need != 0) spill(lanes, need, words);
  lanes.high = _mm512_shldv_epi16(lanes.high, lanes.low, raw_bits);
  lanes.low = _mm512_or_si512(_mm512_sllv_epi16(lanes.low, raw_bits), raw_values);
}

template <class Fetch, class Element, bool kFloat>
void encode_dense(const std::uint8_t* target, const std::uint8_t* base, const DeltaRule& rule,
                  const DeltaEncodeTables& tables, SegmentOutput* segments, unsigned segment_count) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  const Writer writer(rule.table_log);
  auto tail = [&](SegmentOutput& segment) {
    using Word = typename Element::Word;
    const std::size_t offset = segment.begin * sizeof(Word);
    scalar::delta_put<Word>(target + offset, base + offset, segment.count / kLanes * kLanes, segment.count, rule,
                            tables, segment.states, segment.words);
  };
  struct Prepared {
    typename Fetch::Ahead ahead;
    typename Fetch::Symbols symbols;
    __m512i raw;
    __m512i raw_bits;
  };
  const auto* const entries = reinterpret_cast<const std::uint32_t*>(tables.symbols[0]);
  auto look = [&](std::size_t at, Prepared& prepared) TEXTNLP_FAST_INLINE_LAMBDA {
    ask_ahead<Element, -1>(base, at);
    ask_ahead<Element, -1>(target, at);
    const __m512i from = Element::load(base, at);
    const __m512i to = Element::load(target, at);
    const Tokens tokens = tokenize.template operator()<true>(Element::template residual_between<kFloat>(to, from));
    Fetch::ask(prepared.ahead, entries, _mm512_or_si512(_mm512_slli_epi16(context_of(from), 7), tokens.token));
    prepared.raw = tokens.raw;
    prepared.raw_bits = tokens.raw_bits;
  };
  auto fetch = [&](Prepared& prepared)
                   TEXTNLP_FAST_INLINE_LAMBDA { prepared.symbols = Fetch::symbols(prepared.ahead, entries); };
  auto put = [&](const Prepared& prepared, Lanes& lanes, std::uint16_t*& words) TEXTNLP_FAST_INLINE_LAMBDA {
    put_raw(lanes, prepared.raw, prepared.raw_bits, words);
    writer.put_symbols<true>(lanes, prepared.symbols, words);
  };
  encode_segments<Prepared>(segments, segment_count, tail, look, fetch, put);
}

template <class Fetch>
void delta_encode(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, const DeltaRule* rule,
                  const DeltaEncodeTables* tables, SegmentOutput* segments, unsigned segment_count) {
  const bool is_float = rule->element.is_float;
  if (element_size > 2 || rule->table_log < kMinVectorLog) {
    portable::delta_encode(element_size, target, base, rule, tables, segments, segment_count);
  } else if (element_size == 2) {
    is_float ? encode_dense<Fetch, TwoBytes, true>(target, base, *rule, *tables, segments, segment_count)
             : encode_dense<Fetch, TwoBytes, false>(target, base, *rule, *tables, segments, segment_count);
  } else {
    is_float ? encode_dense<Fetch, OneByte, true>(target, base, *rule, *tables, segments, segment_count)
             : encode_dense<Fetch, OneByte, false>(target, base, *rule, *tables, segments, segment_count);
  }
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

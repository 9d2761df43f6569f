// Decoding deltas of elements of one and two bytes on AVX2. Other sizes take the portable kernels.
#pragma once
#include "codec/avx2_residuals.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

template <class Element, bool kFloat>
TEXTNLP_FAST_INLINE void emit(std::uint8_t* out, std::size_t element, const Pair& base, const Pair& residual) {
  Element::store(out, element,
                 {Element::template turned<kFloat>(_mm256_add_epi16(base.a, residual.a), base.a),
                  Element::template turned<kFloat>(_mm256_add_epi16(base.b, residual.b), base.b)});
}

// Tables that are expanded slot by slot.
template <class Element>
struct DenseReader {
  using Word = typename Element::Word;
  const std::uint32_t* slots;
  __m128i log;
  __m256i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  typename Residuals<Element>::Of residual;

  DenseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slots(tables.slots),
        log(count_of(rule.table_log)),
        slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(rule.table_log),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {}

  TEXTNLP_FAST_INLINE void look(Ahead& ahead, const Lanes& lanes, const std::uint8_t* base, std::size_t at) const {
    const Pair context = unpack(context_of(Element::load(base, at)), _mm256_setzero_si256());
    ahead.store({_mm256_or_si256(_mm256_sll_epi16(context.a, log), _mm256_and_si256(lanes.low.a, slot_mask)),
                 _mm256_or_si256(_mm256_sll_epi16(context.b, log), _mm256_and_si256(lanes.low.b, slot_mask))});
  }

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(const Ahead& ahead, Lanes& lanes, SegmentStream& stream, const std::uint8_t* base,
                                std::uint8_t* out, std::size_t at) const {
    const Pair from = Element::load(base, at);
    const Entries entries = unpack_entries(fetch(slots, ahead));
    advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    emit<Element, kFloat>(out, at, from, residual.template take<false>(entries.symbol, lanes, stream));
  }
};

// Tables too fine for that: nearly all lanes take token 0, and the rest is found by comparing with the starts of the
// tokens. Starts are kept less one, so that 2^15 compares as a signed number, like every slot.
struct SparseReader {
  using Word = std::uint16_t;
  static constexpr unsigned kAlways = 6;
  ContextNumbers before[ResidualOf::kMostTokens + 1];  // start - 1, by token; from the last one on its end
  __m256i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  SparseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(rule.table_log),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {
    for (unsigned t = 0; t <= tables.tokens || t < kAlways; ++t) {
      for (unsigned c = 0; c < rule.contexts; ++c) before[t].set(c, tables.cumulative[c][t] - 1u);
      for (unsigned c = rule.contexts; c < kMaxContexts; ++c) before[t].set(c, 0);
    }
  }

  TEXTNLP_FAST_INLINE void look(Ahead&, const Lanes&, const std::uint8_t*, std::size_t) const {}

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(const Ahead&, Lanes& lanes, SegmentStream& stream, const std::uint8_t* base,
                                std::uint8_t* out, std::size_t at) const {
    const Pair from = load_pair(base, at);
    const ContextIndex context(context_of(from));
    const Pair last_zero = context.find(before[1]);
    const Pair slot = {_mm256_and_si256(lanes.low.a, slot_mask), _mm256_and_si256(lanes.low.b, slot_mask)};
    const Pair changed = {_mm256_cmpgt_epi16(slot.a, last_zero.a), _mm256_cmpgt_epi16(slot.b, last_zero.b)};
    if (__builtin_expect(!any(changed), 1)) {
      const __m256i minus_one = set16(0xffff);
      advance(lanes, {_mm256_sub_epi16(last_zero.a, minus_one), _mm256_sub_epi16(last_zero.b, minus_one)}, slot,
              shifts);
      if (any_below_floor(lanes)) refill(lanes, stream);
      store_pair(out, at, from);
      return;
    }
    const Pair token = changed_tokens(context, slot, changed, last_zero, lanes);
    refill(lanes, stream);
    emit<TwoBytes, kFloat>(out, at, from, residual.template take<true>(token, lanes, stream));
  }

 private:
  struct Search {
    __m256i token;
    __m256i start;  // less one
    __m256i end;    // less one

    // `reached`: lanes at or past token t, which begins at `from` and ends at `to`.
    TEXTNLP_FAST_INLINE void pass(__m256i reached, __m256i from, __m256i to) {
      token = _mm256_sub_epi16(token, reached);
      start = _mm256_blendv_epi8(start, from, reached);
      end = _mm256_blendv_epi8(end, to, reached);
    }
  };

  TEXTNLP_FAST_INLINE Pair changed_tokens(const ContextIndex& context, const Pair& slot, const Pair& changed,
                                          const Pair& last_zero, Lanes& lanes) const {
    const __m256i minus_one = set16(0xffff);
    Search a = {_mm256_setzero_si256(), minus_one, last_zero.a};
    Search b = {_mm256_setzero_si256(), minus_one, last_zero.b};
    Pair reached = changed;
    Pair next = last_zero;
    unsigned t = 2;
    const auto pass = [&]() __attribute__((always_inline)) {
      const Pair after = context.find(before[t++]);
      a.pass(reached.a, next.a, after.a);
      b.pass(reached.b, next.b, after.b);
      next = after;
      reached = {_mm256_cmpgt_epi16(slot.a, after.a), _mm256_cmpgt_epi16(slot.b, after.b)};
    };
      // The likely tokens come first: a branch at each would be guessed wrong more often than not.
#pragma GCC unroll 4
    while (t < kAlways) pass();
    // A slot lies below the end of the last token.
    while (any(reached)) pass();
    const Pair freq = {_mm256_sub_epi16(a.end, a.start), _mm256_sub_epi16(b.end, b.start)};
    const Pair offset = {_mm256_add_epi16(_mm256_sub_epi16(slot.a, a.start), minus_one),
                         _mm256_add_epi16(_mm256_sub_epi16(slot.b, b.start), minus_one)};
    advance(lanes, freq, offset, shifts);
    return {a.token, b.token};
  }
};

template <bool kFloat, class Reader>
bool decode_delta(SegmentInput* segments, unsigned count, const DeltaRule& rule, const DeltaDecodeTables& tables,
                  const std::uint8_t* base, std::uint8_t* out) {
  const Reader reader(rule, tables);
  return decode_segments(
      segments, count,
      [&](std::size_t at, Ahead & ahead, const Lanes& lanes)
          __attribute__((always_inline)) { reader.look(ahead, lanes, base, at); },
      [&](std::size_t at, const Ahead& ahead, Lanes& lanes, SegmentStream& stream)
          __attribute__((always_inline)) { reader.template step<kFloat>(ahead, lanes, stream, base, out, at); },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        using Word = typename Reader::Word;
        const std::size_t offset = segment.begin * sizeof(Word);
        scalar::delta_get<Word>(base + offset, out + offset, first, segment.count, rule, tables, segment.states, words);
      });
}

bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out) {
  // A slot is found by a 16-bit index.
  const bool dense = tables->slots != nullptr && rule->contexts << rule->table_log <= 65536;
  if (element_size == 1 && dense) {
    return rule->element.is_float
               ? decode_delta<true, DenseReader<OneByte>>(segments, count, *rule, *tables, base, out)
               : decode_delta<false, DenseReader<OneByte>>(segments, count, *rule, *tables, base, out);
  }
  // More tokens than the shuffles hold, or a bucket of sixteen raw bits: valid, but nothing that our encoder writes.
  const unsigned most_bits = raw_bits_of(tables->tokens - 1, rule->scheme);
  if (element_size != 2 || tables->tokens > ResidualOf::kMostTokens || most_bits > ResidualOf::kMostBits ||
      rule->element.context_mask > kMostContextMask) {
    return portable::delta_decode(element_size, segments, count, rule, tables, base, out);
  }
  if (rule->element.is_float) {
    return dense ? decode_delta<true, DenseReader<TwoBytes>>(segments, count, *rule, *tables, base, out)
                 : decode_delta<true, SparseReader>(segments, count, *rule, *tables, base, out);
  }
  return dense ? decode_delta<false, DenseReader<TwoBytes>>(segments, count, *rule, *tables, base, out)
               : decode_delta<false, SparseReader>(segments, count, *rule, *tables, base, out);
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast

// Decoding deltas of elements of one and two bytes on AVX-512. Other sizes take the portable kernels.
#pragma once
#include "codec/avx512_residuals.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Tokens back to residuals: origin and raw bits of up to 64 tokens by permute.
struct ResidualOf {
  __m512i origin[2];
  __m512i raw_bits;  // bytes

  ResidualOf(TokenScheme scheme, unsigned tokens) {
    alignas(64) std::uint16_t origins[64] = {};
    alignas(64) std::uint8_t bits[64] = {};
    for (unsigned t = 0; t < tokens && t < 64; ++t) {
      origins[t] = static_cast<std::uint16_t>(token_origin(t, scheme));
      bits[t] = static_cast<std::uint8_t>(raw_bits_of(t, scheme));
    }
    origin[0] = _mm512_load_si512(origins);
    origin[1] = _mm512_load_si512(origins + 32);
    raw_bits = _mm512_load_si512(bits);
  }

  // Takes the raw bits of a step out of the states and returns the residuals.
  template <bool kMaySkip>
  TEXTNLP_FAST_INLINE __m512i take(__m512i token, Lanes& lanes, Stream& stream) const {
    const __m512i base = _mm512_permutex2var_epi16(origin[0], token, origin[1]);
    // Byte permute: the upper byte of a token is 0, and token 0 has no raw bits.
    const __m512i bits = _mm512_permutexvar_epi8(token, raw_bits);
    if (kMaySkip && _mm512_test_epi16_mask(bits, bits) == 0) return base;
    const __m512i raw = _mm512_andnot_si512(_mm512_sllv_epi16(set16(0xffff), bits), lanes.low);
    lanes.low = _mm512_shrdv_epi16(lanes.low, lanes.high, bits);
    lanes.high = _mm512_srlv_epi16(lanes.high, bits);
    refill(lanes, stream);
    return _mm512_mask_sub_epi16(_mm512_add_epi16(base, raw), _mm512_movepi16_mask(base), base, raw);
  }
};

// The same for single bytes: any number of tokens, and residuals modulo 256, which is all that is stored of them.
struct ByteResidualOf {
  __m512i origin[2];
  __m512i raw_bits[2];

  ByteResidualOf(TokenScheme scheme, unsigned tokens) {
    alignas(64) std::uint8_t origins[kMaxTokens] = {};
    alignas(64) std::uint8_t bits[kMaxTokens] = {};
    for (unsigned t = 0; t < tokens; ++t) {
      origins[t] = static_cast<std::uint8_t>(token_origin(t, scheme));
      bits[t] = static_cast<std::uint8_t>(raw_bits_of(t, scheme));
    }
    for (unsigned half = 0; half < 2; ++half) {
      origin[half] = _mm512_load_si512(origins + 64 * half);
      raw_bits[half] = _mm512_load_si512(bits + 64 * half);
    }
  }

  template <bool kMaySkip>
  TEXTNLP_FAST_INLINE __m512i take(__m512i token, Lanes& lanes, Stream& stream) const {
    // Byte permutes: the upper byte of a token is 0, and token 0 stands for 0.
    const __m512i base = _mm512_permutex2var_epi8(origin[0], token, origin[1]);
    const __m512i bits = _mm512_permutex2var_epi8(raw_bits[0], token, raw_bits[1]);
    if (kMaySkip && _mm512_test_epi16_mask(bits, bits) == 0) return base;
    const __m512i raw = _mm512_andnot_si512(_mm512_sllv_epi16(set16(0xffff), bits), lanes.low);
    lanes.low = _mm512_shrdv_epi16(lanes.low, lanes.high, bits);
    lanes.high = _mm512_srlv_epi16(lanes.high, bits);
    refill(lanes, stream);
    const __mmask32 negative = _mm512_testn_epi16_mask(token, set16(1));
    return _mm512_mask_sub_epi16(_mm512_add_epi16(base, raw), negative, base, raw);
  }
};

template <class Element>
struct Residuals {
  using Of = ResidualOf;
};

template <>
struct Residuals<OneByte> {
  using Of = ByteResidualOf;
};

template <class Element, bool kFloat>
TEXTNLP_FAST_INLINE void emit(std::uint8_t* out, std::size_t element, __m512i base, __m512i residual) {
  Element::store(out, element, Element::template turned<kFloat>(_mm512_add_epi16(base, residual), base));
}

template <class ElementType, class Fetch>
struct DenseReader {
  using Element = ElementType;
  const std::uint32_t* slots;
  __m128i log;
  __m512i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  typename Residuals<Element>::Of residual;

  DenseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slots(tables.slots),
        log(_mm_cvtsi32_si128(static_cast<int>(rule.table_log))),
        slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(make_shifts(rule.table_log)),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {}

  using Ahead = typename Fetch::Ahead;

  TEXTNLP_FAST_INLINE void look(Ahead& ahead, const Lanes& lanes, const std::uint8_t* base, std::size_t at) const {
    const __m512i slot = _mm512_and_si512(lanes.low, slot_mask);
    Fetch::ask(ahead, slots, _mm512_or_si512(_mm512_sll_epi16(context_of(Element::load(base, at)), log), slot));
  }

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(const Ahead& ahead, Lanes& lanes, Stream& stream, const std::uint8_t* base,
                                std::uint8_t* out, std::size_t at) const {
    const __m512i from = Element::load(base, at);
    const Entries entries = entries_of(Fetch::halves(ahead, slots));
    lanes = advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    emit<Element, kFloat>(out, at, from, residual.template take<false>(entries.symbol, lanes, stream));
  }
};

struct SparseReader {
  using Element = TwoBytes;
  static constexpr unsigned kStarts = 64;
  alignas(64) std::uint16_t starts[kStarts + 4][kMaxContexts];  // by token
  __m512i zero_freq;
  __m512i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  SparseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(make_shifts(rule.table_log)),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {
    alignas(64) std::uint16_t zeros[kMaxContexts] = {};
    for (unsigned c = 0; c < rule.contexts; ++c) {
      zeros[c] = tables.zero_freq[c];
      for (unsigned t = 0; t < kStarts + 4; ++t) starts[t][c] = tables.cumulative[c][t];
    }
    zero_freq = _mm512_load_si512(zeros);
  }

  struct Ahead {};

  TEXTNLP_FAST_INLINE void look(Ahead&, const Lanes&, const std::uint8_t*, std::size_t) const {}

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(const Ahead&, Lanes& lanes, Stream& stream, const std::uint8_t* base, std::uint8_t* out,
                                std::size_t at) const {
    const __m512i from = load16(base, at);
    const __m512i context = context_of(from);
    const __m512i zero = _mm512_permutexvar_epi16(context, zero_freq);
    const __m512i slot = _mm512_and_si512(lanes.low, slot_mask);
    const __mmask32 changed = _mm512_cmpge_epu16_mask(slot, zero);
    if (__builtin_expect(changed == 0, 1)) {
      lanes = advance(lanes, zero, slot, shifts);
      if (_mm512_testn_epi16_mask(lanes.high, lanes.high) != 0) refill(lanes, stream);
      _mm512_storeu_si512(out + 2 * at, from);
      return;
    }
    const __m512i token = changed_tokens(context, slot, zero, lanes);
    refill(lanes, stream);
    emit<Element, kFloat>(out, at, from, residual.take<true>(token, lanes, stream));
  }

 private:
  struct Found {
    __m512i start;
    __m512i end;
    __m512i token;
    __m512i next;  // start of the token to be tried next
  };

  TEXTNLP_FAST_INLINE void compare(Found& found, __m512i context, __m512i slot, unsigned first) const {
#pragma GCC unroll 4
    for (unsigned k = 0; k < 4; ++k) {
      const __mmask32 reached = _mm512_cmpge_epu16_mask(slot, found.next);
      const __m512i after = _mm512_permutexvar_epi16(context, _mm512_load_si512(starts[first + k + 1]));
      found.start = _mm512_mask_mov_epi16(found.start, reached, found.next);
      found.end = _mm512_mask_mov_epi16(found.end, reached, after);
      found.token = _mm512_mask_mov_epi16(found.token, reached, set16(first + k));
      found.next = after;
    }
  }

  // Compares with the starts of the tokens in order, four at a time: a branch a token would be guessed wrong more often
  // than not.
  TEXTNLP_FAST_INLINE __m512i changed_tokens(__m512i context, __m512i slot, __m512i zero, Lanes& lanes) const {
    Found found = {_mm512_setzero_si512(), zero, _mm512_setzero_si512(), zero};
    compare(found, context, slot, 1);
    for (unsigned t = 5; _mm512_cmpge_epu16_mask(slot, found.next) != 0 && t < kStarts; t += 4) {
      compare(found, context, slot, t);
    }
    const __m512i start = found.start;
    const __m512i end = found.end;
    const __m512i token = found.token;
    lanes = advance(lanes, _mm512_sub_epi16(end, start), _mm512_sub_epi16(slot, start), shifts);
    return token;
  }
};

template <bool kFloat, unsigned kWays, class Reader>
bool decode_delta_ways(SegmentInput* segments, const DeltaRule& rule, const DeltaDecodeTables& tables,
                       const Reader& reader, const std::uint8_t* base, std::uint8_t* out) {
  using Word = typename Reader::Element::Word;
  Stream streams[kWays];
  Lanes lanes[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    streams[w].open(segments[w].words, segments[w].end);
    lanes[w] = load_lanes(segments[w].states);
    const std::size_t steps = segments[w].count / kLanes;
    shared = steps < shared ? steps : shared;
  }
  // The places of the next entries are stored one round ahead, so that nobody waits for a store to be read back.
  typename Reader::Ahead ahead[kWays];
  for (unsigned w = 0; w < kWays && shared != 0; ++w) reader.look(ahead[w], lanes[w], base, segments[w].begin);
  for (std::size_t step = 0; step < shared; ++step) {
    const std::size_t next = step + 1 < shared ? step + 1 : step;
#pragma GCC unroll 4
    for (unsigned w = 0; w < kWays; ++w) {
      if (!streams[w].ready()) return false;
      reader.template step<kFloat>(ahead[w], lanes[w], streams[w], base, out, segments[w].begin + step * kLanes);
      reader.look(ahead[w], lanes[w], base, segments[w].begin + next * kLanes);
    }
  }
  for (unsigned w = 0; w < kWays; ++w) {
    SegmentInput& segment = segments[w];
    std::size_t step = shared;
    for (; step < segment.count / kLanes; ++step) {
      if (!streams[w].ready()) return false;
      reader.look(ahead[w], lanes[w], base, segment.begin + step * kLanes);
      reader.template step<kFloat>(ahead[w], lanes[w], streams[w], base, out, segment.begin + step * kLanes);
    }
    store_lanes(segment.states, lanes[w]);
    if (streams[w].overrun()) return false;
    WordReader words{streams[w].at, streams[w].end, false};
    const std::size_t offset = segment.begin * sizeof(Word);
    scalar::delta_get<Word>(base + offset, out + offset, step * kLanes, segment.count, rule, tables, segment.states,
                            words);
    if (!scalar::finished(segment.states, words)) return false;
  }
  return true;
}

template <bool kFloat, class Reader>
bool decode_delta(SegmentInput* segments, unsigned count, const DeltaRule& rule, const DeltaDecodeTables& tables,
                  const std::uint8_t* base, std::uint8_t* out) {
  const Reader reader(rule, tables);
  unsigned at = 0;
  for (; count - at >= 4; at += 4) {
    if (!decode_delta_ways<kFloat, 4>(segments + at, rule, tables, reader, base, out)) return false;
  }
  for (; count - at >= 2; at += 2) {
    if (!decode_delta_ways<kFloat, 2>(segments + at, rule, tables, reader, base, out)) return false;
  }
  return at == count || decode_delta_ways<kFloat, 1>(segments + at, rule, tables, reader, base, out);
}

template <class Fetch>
bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out) {
  // A slot is found by a 16-bit index.
  const bool dense = tables->slots != nullptr && rule->contexts << rule->table_log <= 65536;
  if (element_size == 1 && dense) {
    return rule->element.is_float
               ? decode_delta<true, DenseReader<OneByte, Fetch>>(segments, count, *rule, *tables, base, out)
               : decode_delta<false, DenseReader<OneByte, Fetch>>(segments, count, *rule, *tables, base, out);
  }
  // More tokens than a register holds, or a bucket of sixteen raw bits, which a 16-bit shift takes for none: valid, but
  // nothing that our encoder writes.
  const unsigned most_bits = raw_bits_of(tables->tokens - 1, rule->scheme);
  if (element_size != 2 || tables->tokens > 64 || most_bits > 15) {
    return portable::delta_decode(element_size, segments, count, rule, tables, base, out);
  }
  if (rule->element.is_float) {
    return dense ? decode_delta<true, DenseReader<TwoBytes, Fetch>>(segments, count, *rule, *tables, base, out)
                 : decode_delta<true, SparseReader>(segments, count, *rule, *tables, base, out);
  }
  return dense ? decode_delta<false, DenseReader<TwoBytes, Fetch>>(segments, count, *rule, *tables, base, out)
               : decode_delta<false, SparseReader>(segments, count, *rule, *tables, base, out);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

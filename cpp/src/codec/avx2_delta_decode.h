// Deltas of two-byte elements on AVX2: contexts, residuals, and the reader. Other sizes take the portable kernels.
// What belongs to an element but fits a byte (context, token) is looked up in bytes, thirty-two to a register, in the
// order that a pack within 128 bits leaves; an unpack restores lane order.
#pragma once
#include "codec/avx2_bytes.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

TEXTNLP_FAST_INLINE __m256i set8(unsigned value) { return _mm256_set1_epi8(static_cast<char>(value)); }

// Sixteen bytes for a byte shuffle, in both halves.
TEXTNLP_FAST_INLINE __m256i twice(const std::uint8_t* bytes) { return _mm256_broadcastsi128_si256(load128(bytes)); }

TEXTNLP_FAST_INLINE Pair unpack(__m256i low_bytes, __m256i high_bytes) {
  return {_mm256_unpacklo_epi8(low_bytes, high_bytes), _mm256_unpackhi_epi8(low_bytes, high_bytes)};
}

// turned() of ordered.h: value ^ 0x7fff where the top bits differ.
template <bool kFloat>
TEXTNLP_FAST_INLINE __m256i turned(__m256i value, __m256i base) {
  if (!kFloat) return value;
  const __m256i crossed = _mm256_srai_epi16(_mm256_xor_si256(value, base), 15);
  return _mm256_xor_si256(value, _mm256_and_si256(crossed, set16(0x7fff)));
}

// Base elements to table numbers. The context field must fit a byte.
struct ContextOf {
  __m128i shift;
  __m256i mask;
  __m256i first;
  __m256i last;

  explicit ContextOf(const DeltaRule& rule)
      : shift(count_of(rule.element.context_shift)),
        mask(set16(rule.element.context_mask)),
        first(set8(rule.context_base)),
        last(set8(rule.contexts - 1)) {}

  // As bytes, packed.
  TEXTNLP_FAST_INLINE __m256i operator()(const Pair& base) const {
    const __m256i field = _mm256_packus_epi16(_mm256_and_si256(_mm256_srl_epi16(base.a, shift), mask),
                                              _mm256_and_si256(_mm256_srl_epi16(base.b, shift), mask));
    return _mm256_min_epu8(_mm256_subs_epu8(field, first), last);
  }
};

constexpr std::uint32_t kMostContextMask = 255;

// A number of 16 bits for each of up to 32 contexts, as four shuffle tables: lower and upper bytes of contexts 0 to 15
// and of the rest.
struct ContextNumbers {
  alignas(16) std::uint8_t bytes[4][16];

  void set(unsigned context, unsigned number) {
    bytes[context / 16][context % 16] = static_cast<std::uint8_t>(number);
    bytes[2 + context / 16][context % 16] = static_cast<std::uint8_t>(number >> 8);
  }
};

struct ContextIndex {
  __m256i below_16;
  __m256i above_15;

  // A shuffle gives zero where the top bit of the index is set.
  TEXTNLP_FAST_INLINE explicit ContextIndex(__m256i context)
      : below_16(_mm256_add_epi8(context, set8(0x70))), above_15(_mm256_add_epi8(context, set8(0xf0))) {}

  TEXTNLP_FAST_INLINE Pair find(const ContextNumbers& numbers) const {
    const __m256i low = _mm256_or_si256(_mm256_shuffle_epi8(twice(numbers.bytes[0]), below_16),
                                        _mm256_shuffle_epi8(twice(numbers.bytes[1]), above_15));
    const __m256i high = _mm256_or_si256(_mm256_shuffle_epi8(twice(numbers.bytes[2]), below_16),
                                         _mm256_shuffle_epi8(twice(numbers.bytes[3]), above_15));
    return unpack(low, high);
  }
};

// Tokens back to residuals: origin and raw bits of up to 64 tokens, by shuffle.
struct ResidualOf {
  static constexpr unsigned kMostTokens = 64;
  static constexpr unsigned kMostBits = 15;  // raw bits
  struct Part {
    alignas(16) std::uint8_t low[16];
    alignas(16) std::uint8_t high[16];
    alignas(16) std::uint8_t bits[16];
  };
  Part parts[kMostTokens / 16] = {};
  unsigned part_count;
  __m256i last_direct;
  // By raw bits n: 2^n - 1 and 2^(16 - n), in halves.
  Part mask = {};
  Part scale = {};

  ResidualOf(TokenScheme scheme, unsigned tokens)
      : part_count((tokens + 15) / 16), last_direct(set16(2 * scheme.direct)) {
    for (unsigned t = 0; t < tokens; ++t) {
      const auto origin = static_cast<std::uint16_t>(token_origin(t, scheme));
      parts[t / 16].low[t % 16] = static_cast<std::uint8_t>(origin);
      parts[t / 16].high[t % 16] = static_cast<std::uint8_t>(origin >> 8);
      parts[t / 16].bits[t % 16] = static_cast<std::uint8_t>(raw_bits_of(t, scheme));
    }
    for (unsigned n = 0; n <= kMostBits; ++n) {
      const unsigned ones = (1u << n) - 1;
      const unsigned power = n == 0 ? 0 : 1u << (16 - n);
      mask.low[n] = static_cast<std::uint8_t>(ones);
      mask.high[n] = static_cast<std::uint8_t>(ones >> 8);
      scale.low[n] = static_cast<std::uint8_t>(power);
      scale.high[n] = static_cast<std::uint8_t>(power >> 8);
    }
  }

  // Takes the raw bits of a step out of the states and returns the residuals.
  template <bool kMaySkip>
  TEXTNLP_FAST_INLINE Pair take(const Pair& token, Lanes& lanes, SegmentStream& stream) const {
    if (kMaySkip) {
      const Pair bucket = {_mm256_cmpgt_epi16(token.a, last_direct), _mm256_cmpgt_epi16(token.b, last_direct)};
      if (!any(bucket)) return {direct(token.a), direct(token.b)};
    }
    const __m256i packed = _mm256_packus_epi16(token.a, token.b);
    __m256i low = _mm256_setzero_si256();
    __m256i high = _mm256_setzero_si256();
    __m256i bits = _mm256_setzero_si256();
    for (unsigned p = 0; p < part_count; ++p) {
      // 0x70 to 0x7f for the tokens of this part, 0x80 and more for others.
      const __m256i index = _mm256_adds_epu8(_mm256_xor_si256(packed, set8(16 * p)), set8(0x70));
      low = _mm256_or_si256(low, _mm256_shuffle_epi8(twice(parts[p].low), index));
      high = _mm256_or_si256(high, _mm256_shuffle_epi8(twice(parts[p].high), index));
      bits = _mm256_or_si256(bits, _mm256_shuffle_epi8(twice(parts[p].bits), index));
    }
    const Pair origin = unpack(low, high);
    const Pair masks = unpack(_mm256_shuffle_epi8(twice(mask.low), bits), _mm256_shuffle_epi8(twice(mask.high), bits));
    const Pair scales =
        unpack(_mm256_shuffle_epi8(twice(scale.low), bits), _mm256_shuffle_epi8(twice(scale.high), bits));
    const Pair raw = {_mm256_and_si256(lanes.low.a, masks.a), _mm256_and_si256(lanes.low.b, masks.b)};
    drop(lanes.high.a, lanes.low.a, scales.a);
    drop(lanes.high.b, lanes.low.b, scales.b);
    refill(lanes, stream);
    return {residual(origin.a, raw.a), residual(origin.b, raw.b)};
  }

 private:
  // Residuals of direct tokens: 0, +1, -1, +2, -2, ...
  static TEXTNLP_FAST_INLINE __m256i direct(__m256i token) {
    const __m256i one = set16(1);
    const __m256i size = _mm256_srli_epi16(_mm256_add_epi16(token, one), 1);
    const __m256i negative = _mm256_sub_epi16(_mm256_and_si256(token, one), one);
    return _mm256_sub_epi16(_mm256_xor_si256(size, negative), negative);
  }

  static TEXTNLP_FAST_INLINE __m256i residual(__m256i origin, __m256i raw) {
    const __m256i negative = _mm256_srai_epi16(origin, 15);
    return _mm256_add_epi16(origin, _mm256_sub_epi16(_mm256_xor_si256(raw, negative), negative));
  }

  // Shifts a state right by n bits, given 2^(16 - n): a product's upper half. 0 stands for no shift.
  static TEXTNLP_FAST_INLINE void drop(__m256i& high, __m256i& low, __m256i scale) {
    const __m256i none = _mm256_cmpeq_epi16(scale, _mm256_setzero_si256());
    const __m256i shifted = _mm256_or_si256(_mm256_mulhi_epu16(low, scale), _mm256_mullo_epi16(high, scale));
    low = _mm256_or_si256(shifted, _mm256_and_si256(low, none));
    high = _mm256_or_si256(_mm256_mulhi_epu16(high, scale), _mm256_and_si256(high, none));
  }
};

template <bool kFloat>
TEXTNLP_FAST_INLINE void emit(std::uint8_t* out, std::size_t element, const Pair& base, const Pair& residual) {
  store_pair(out, element,
             {turned<kFloat>(_mm256_add_epi16(base.a, residual.a), base.a),
              turned<kFloat>(_mm256_add_epi16(base.b, residual.b), base.b)});
}

// Tables that are expanded slot by slot.
struct DenseReader {
  const std::uint32_t* slots;
  __m128i log;
  __m256i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  DenseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slots(tables.slots),
        log(count_of(rule.table_log)),
        slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(rule.table_log),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {}

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(Lanes& lanes, SegmentStream& stream, const std::uint8_t* base, std::uint8_t* out,
                                std::size_t at) const {
    const Pair from = load_pair(base, at);
    const Pair context = unpack(context_of(from), _mm256_setzero_si256());
    const Pair index = {_mm256_or_si256(_mm256_sll_epi16(context.a, log), _mm256_and_si256(lanes.low.a, slot_mask)),
                        _mm256_or_si256(_mm256_sll_epi16(context.b, log), _mm256_and_si256(lanes.low.b, slot_mask))};
    const Entries entries = unpack_entries(gather(slots, index));
    advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    emit<kFloat>(out, at, from, residual.template take<false>(entries.symbol, lanes, stream));
  }
};

// Tables too fine for that: nearly all lanes take token 0, and the rest is found by comparing with the starts of the
// tokens. Starts are kept less one, so that 2^15 compares as a signed number, like every slot.
struct SparseReader {
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

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(Lanes& lanes, SegmentStream& stream, const std::uint8_t* base, std::uint8_t* out,
                                std::size_t at) const {
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
    emit<kFloat>(out, at, from, residual.template take<true>(token, lanes, stream));
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
      [&](std::size_t at, Lanes & lanes, SegmentStream & stream)
          __attribute__((always_inline)) { reader.template step<kFloat>(lanes, stream, base, out, at); },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        scalar::delta_get<std::uint16_t>(base + 2 * segment.begin, out + 2 * segment.begin, first, segment.count, rule,
                                         tables, segment.states, words);
      });
}

bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out) {
  // More tokens than the shuffles hold, or a bucket of sixteen raw bits: valid, but nothing that our encoder writes.
  const unsigned most_bits = raw_bits_of(tables->tokens - 1, rule->scheme);
  if (element_size != 2 || tables->tokens > ResidualOf::kMostTokens || most_bits > ResidualOf::kMostBits ||
      rule->element.context_mask > kMostContextMask) {
    return portable::delta_decode(element_size, segments, count, rule, tables, base, out);
  }
  // A slot is found by a 16-bit index.
  const bool dense = tables->slots != nullptr && rule->contexts << rule->table_log <= 65536;
  if (rule->element.is_float) {
    return dense ? decode_delta<true, DenseReader>(segments, count, *rule, *tables, base, out)
                 : decode_delta<true, SparseReader>(segments, count, *rule, *tables, base, out);
  }
  return dense ? decode_delta<false, DenseReader>(segments, count, *rule, *tables, base, out)
               : decode_delta<false, SparseReader>(segments, count, *rule, *tables, base, out);
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast

// Deltas of elements of one and two bytes on AVX2: the counts and the writer.
#pragma once
#include "codec/avx2_delta_decode.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

template <class Element, bool kFloat>
TEXTNLP_FAST_INLINE Pair residuals(const Pair& to, const Pair& from) {
  return {Element::template residual_between<kFloat>(to.a, from.a),
          Element::template residual_between<kFloat>(to.b, from.b)};
}

// Raw bits, 32 bits a lane: values and how many.
struct Raw {
  Wide value;
  Wide bits;
};

struct Tokenizer {
  __m256i direct;
  __m256i shift_origin;  // 2^mantissa - direct - 1
  __m128i float_shift;   // 23 - mantissa
  __m256i float_origin;  // what exponent and leading bits of 2^mantissa are to its bucket
  __m256i low_origin;    // 127 + mantissa

  explicit Tokenizer(TokenScheme scheme)
      : direct(set16(scheme.direct)),
        shift_origin(set16((1u << scheme.mantissa) - scheme.direct - 1)),
        float_shift(count_of(23 - scheme.mantissa)),
        float_origin(set32(((127 + scheme.mantissa) << scheme.mantissa) - (scheme.direct + 1))),
        low_origin(set32(127 + scheme.mantissa)) {}

  // Tokens; with kRaw and if there are any, raw bits (`raw` is left alone if not). True if there are.
  template <bool kRaw>
  TEXTNLP_FAST_INLINE bool operator()(const Pair& residual, Pair& token, Raw& raw) const {
    const Pair size = {_mm256_abs_epi16(residual.a), _mm256_abs_epi16(residual.b)};
    token = {signed_token(residual.a, size.a), signed_token(residual.b, size.b)};
    const __m256i zero = _mm256_setzero_si256();
    const Pair is_direct = {_mm256_cmpeq_epi16(_mm256_subs_epu16(size.a, direct), zero),
                            _mm256_cmpeq_epi16(_mm256_subs_epu16(size.b, direct), zero)};
    if (_mm256_movemask_epi8(_mm256_and_si256(is_direct.a, is_direct.b)) == -1) return false;
    const Wide shifted = widen(Pair{_mm256_add_epi16(size.a, shift_origin), _mm256_add_epi16(size.b, shift_origin)});
    // A float's exponent and leading bits are the bucket.
    const Wide floats = {float_bits(shifted.even_a), float_bits(shifted.odd_a), float_bits(shifted.even_b),
                         float_bits(shifted.odd_b)};
    const Pair bucket =
        lower_halves({number(floats.even_a), number(floats.odd_a), number(floats.even_b), number(floats.odd_b)});
    token = {signed_token(residual.a, _mm256_blendv_epi8(bucket.a, size.a, is_direct.a)),
             signed_token(residual.b, _mm256_blendv_epi8(bucket.b, size.b, is_direct.b))};
    if (kRaw) {
      // Sign extension makes masks of 32 bits.
      raw_of(shifted.even_a, floats.even_a, even_mask(is_direct.a), raw.value.even_a, raw.bits.even_a);
      raw_of(shifted.odd_a, floats.odd_a, odd_mask(is_direct.a), raw.value.odd_a, raw.bits.odd_a);
      raw_of(shifted.even_b, floats.even_b, even_mask(is_direct.b), raw.value.even_b, raw.bits.even_b);
      raw_of(shifted.odd_b, floats.odd_b, odd_mask(is_direct.b), raw.value.odd_b, raw.bits.odd_b);
    }
    return true;
  }

 private:
  // 0, +1, -1, +2, -2, ...: twice the bucket, less one for the positive.
  static TEXTNLP_FAST_INLINE __m256i signed_token(__m256i residual, __m256i bucket) {
    return _mm256_add_epi16(_mm256_add_epi16(bucket, bucket), _mm256_cmpgt_epi16(residual, _mm256_setzero_si256()));
  }

  static TEXTNLP_FAST_INLINE __m256i float_bits(__m256i value) {
    return _mm256_castps_si256(_mm256_cvtepi32_ps(value));
  }

  TEXTNLP_FAST_INLINE __m256i number(__m256i floats) const {
    return _mm256_and_si256(_mm256_sub_epi32(_mm256_srl_epi32(floats, float_shift), float_origin), set32(0xffff));
  }

  static TEXTNLP_FAST_INLINE __m256i even_mask(__m256i mask) {
    return _mm256_srai_epi32(_mm256_slli_epi32(mask, 16), 16);
  }
  static TEXTNLP_FAST_INLINE __m256i odd_mask(__m256i mask) { return _mm256_srai_epi32(mask, 16); }
  TEXTNLP_FAST_INLINE void raw_of(__m256i shifted, __m256i floats, __m256i is_direct, __m256i& value,
                                  __m256i& bits) const {
    const __m256i low = _mm256_sub_epi32(_mm256_srli_epi32(floats, 23), low_origin);
    const __m256i place = _mm256_andnot_si256(_mm256_sllv_epi32(set32(0xffffffff), low), shifted);
    value = _mm256_andnot_si256(is_direct, place);
    bits = _mm256_andnot_si256(is_direct, low);
  }
};

template <class Element>
unsigned max_field_of(const std::uint8_t* base, std::size_t count, ElementRule rule) {
  const __m256i mask = set16(rule.context_mask << rule.context_shift);
  const std::size_t steps = count / kLanes;
  __m256i most = _mm256_setzero_si256();
  for (std::size_t step = 0; step < steps; ++step) {
    const Pair from = Element::load(base, step * kLanes);
    most = _mm256_max_epu16(most, _mm256_max_epu16(_mm256_and_si256(from.a, mask), _mm256_and_si256(from.b, mask)));
  }
  alignas(32) std::uint16_t lanes[16];
  store256(lanes, most);
  unsigned largest = scalar::max_field<typename Element::Word>(base, steps * kLanes, count, rule);
  for (const std::uint16_t lane : lanes) {
    const unsigned field = lane >> rule.context_shift;
    largest = field > largest ? field : largest;
  }
  return largest;
}

unsigned max_field(unsigned element_size, const std::uint8_t* base, std::size_t count, ElementRule rule) {
  return element_size == 1   ? max_field_of<OneByte>(base, count, rule)
         : element_size == 2 ? max_field_of<TwoBytes>(base, count, rule)
                             : portable::max_field(element_size, base, count, rule);
}

// context << kTokenBits | token, 16 bits a lane.
template <unsigned kTokenBits>
TEXTNLP_FAST_INLINE Pair table_index(__m256i context, const Pair& token) {
  const Pair wide = unpack(context, _mm256_setzero_si256());
  return {_mm256_or_si256(_mm256_slli_epi16(wide.a, kTokenBits), token.a),
          _mm256_or_si256(_mm256_slli_epi16(wide.b, kTokenBits), token.b)};
}

// Counts of context << kTokenBits | token. Four tables in turn, for an increment waits for the one before it to the
// same address; small counters keep them all in the first-level cache and are emptied before they can wrap.
template <unsigned kTokenBits>
struct Cells {
  static constexpr unsigned kCount = kMaxContexts << kTokenBits;
  static constexpr unsigned kTables = 4;
  static constexpr unsigned kStepsToFull = 65535 / (kLanes / kTables);
  std::uint16_t cells[kTables][kCount] = {};
  unsigned steps = 0;

  void flush(TokenCounts* counts) {
    for (unsigned cell = 0; cell < kCount; ++cell) {
      std::uint32_t sum = 0;
      for (unsigned table = 0; table < kTables; ++table) {
        sum += cells[table][cell];
        cells[table][cell] = 0;
      }
      counts[cell >> kTokenBits][cell & ((1u << kTokenBits) - 1)] += sum;
    }
    steps = 0;
  }

  TEXTNLP_FAST_INLINE void add(const Ahead& ahead, TokenCounts* counts) {
    const std::uint64_t* const packed = ahead.numbers;
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

template <class Element, unsigned kTokenBits, bool kFloat>
void histogram_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                     TokenCounts* counts) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  Cells<kTokenBits> cells;
  // A few steps at a time, so that nobody waits for a store to be read back.
  constexpr std::size_t kBatch = 8;
  Ahead ahead[kBatch];
  for (std::size_t step = 0; step < steps;) {
    const std::size_t n = steps - step < kBatch ? steps - step : kBatch;
    for (std::size_t i = 0; i < n; ++i, ++step) {
      const Pair from = Element::load(base, step * kLanes);
      Pair token;
      Raw raw;
      const Pair to = Element::load(target, step * kLanes);
      tokenize.template operator()<false>(residuals<Element, kFloat>(to, from), token, raw);
      ahead[i].store(table_index<kTokenBits>(context_of(from), token));
    }
    for (std::size_t i = 0; i < n; ++i) cells.add(ahead[i], counts);
  }
  cells.flush(counts);
}

constexpr unsigned kTokenBits = 6;

bool fits(unsigned element_size, const DeltaRule& rule) {
  if (element_size == 1) return token_of<std::uint8_t>(0x80, rule.scheme).token < 1u << kTokenBits;
  return element_size == 2 && rule.element.context_mask <= kMostContextMask &&
         token_of<std::uint16_t>(0x8000, rule.scheme).token < 1u << kTokenBits;
}

void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, TokenCounts* counts) {
  if (!fits(element_size, *rule)) {
    portable::delta_histogram(element_size, target, base, count, rule, counts);
    return;
  }
  const std::size_t steps = count / kLanes;
  const bool is_float = rule->element.is_float;
  if (element_size == 2) {
    is_float ? histogram_dense<TwoBytes, kTokenBits, true>(target, base, steps, *rule, counts)
             : histogram_dense<TwoBytes, kTokenBits, false>(target, base, steps, *rule, counts);
    scalar::delta_histogram<std::uint16_t>(target, base, steps * kLanes, count, *rule, counts);
  } else {
    is_float ? histogram_dense<OneByte, kTokenBits, true>(target, base, steps, *rule, counts)
             : histogram_dense<OneByte, kTokenBits, false>(target, base, steps, *rule, counts);
    scalar::delta_histogram<std::uint8_t>(target, base, steps * kLanes, count, *rule, counts);
  }
}

void delta_count(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                 DeltaRule* rule, TokenCounts* counts) {
  scalar::set_contexts(*rule, max_field(element_size, base, count, rule->element));
  delta_histogram(element_size, target, base, count, rule, counts);
}

// Where n bits more do not fit: the upper n are not all zero.
TEXTNLP_FAST_INLINE __m256i lacks_room(__m256i state, __m256i bits) {
  const __m256i upper = _mm256_srlv_epi32(state, _mm256_sub_epi32(set32(32), bits));
  return _mm256_cmpgt_epi32(upper, _mm256_setzero_si256());
}

TEXTNLP_FAST_INLINE __m256i push_bits(__m256i state, __m256i bits, __m256i value) {
  return _mm256_or_si256(_mm256_sllv_epi32(state, bits), value);
}

// Raw bits of a step, into the states.
TEXTNLP_FAST_INLINE void put_raw(Wide& lanes, const Raw& raw, WordSink& sink) {
  const Wide& bits = raw.bits;
  spill(lanes,
        {lacks_room(lanes.even_a, bits.even_a), lacks_room(lanes.odd_a, bits.odd_a),
         lacks_room(lanes.even_b, bits.even_b), lacks_room(lanes.odd_b, bits.odd_b)},
        sink);
  lanes = {push_bits(lanes.even_a, bits.even_a, raw.value.even_a), push_bits(lanes.odd_a, bits.odd_a, raw.value.odd_a),
           push_bits(lanes.even_b, bits.even_b, raw.value.even_b), push_bits(lanes.odd_b, bits.odd_b, raw.value.odd_b)};
}

template <class Element, bool kFloat>
void encode_delta(const std::uint8_t* target, const std::uint8_t* base, const DeltaRule& rule,
                  const DeltaEncodeTables& tables, SegmentOutput* segments, unsigned segment_count) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  const Writer writer(rule.table_log);
  struct Prepared {
    Ahead ahead;
    Raw raw;
    bool has_raw;
  };
  encode_segments<Prepared>(
      segments, segment_count,
      [&](SegmentOutput& segment) {
        using Word = typename Element::Word;
        const std::size_t offset = segment.begin * sizeof(Word);
        scalar::delta_put<Word>(target + offset, base + offset, segment.count / kLanes * kLanes, segment.count, rule,
                                tables, segment.states, segment.words);
      },
      [&](std::size_t at, Prepared & prepared) __attribute__((always_inline)) {
        const Pair from = Element::load(base, at);
        Pair token;
        prepared.has_raw = tokenize.template operator()<true>(
            residuals<Element, kFloat>(Element::load(target, at), from), token, prepared.raw);
        prepared.ahead.store(table_index<7>(context_of(from), token));
      },
      [&](const Prepared& prepared, Wide& lanes, WordSink& sink) __attribute__((always_inline)) {
        if (prepared.has_raw) put_raw(lanes, prepared.raw, sink);
        writer.put_symbols(lanes, fetch(tables.symbols[0], prepared.ahead), sink);
      });
}

void delta_encode(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, const DeltaRule* rule,
                  const DeltaEncodeTables* tables, SegmentOutput* segments, unsigned segment_count) {
  const bool is_float = rule->element.is_float;
  if (!fits(element_size, *rule) || rule->table_log < kMinVectorLog) {
    portable::delta_encode(element_size, target, base, rule, tables, segments, segment_count);
  } else if (element_size == 2) {
    is_float ? encode_delta<TwoBytes, true>(target, base, *rule, *tables, segments, segment_count)
             : encode_delta<TwoBytes, false>(target, base, *rule, *tables, segments, segment_count);
  } else {
    is_float ? encode_delta<OneByte, true>(target, base, *rule, *tables, segments, segment_count)
             : encode_delta<OneByte, false>(target, base, *rule, *tables, segments, segment_count);
  }
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast

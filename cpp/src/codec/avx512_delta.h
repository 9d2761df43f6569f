// Deltas of two-byte elements on AVX-512. Other sizes take the portable kernels.
#pragma once
#include "codec/avx512_bytes.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

TEXTNLP_FAST_INLINE __m512i load16(const std::uint8_t* data, std::size_t element) {
  return _mm512_loadu_si512(data + 2 * element);
}

TEXTNLP_FAST_INLINE __m512i set16(unsigned value) { return _mm512_set1_epi16(static_cast<short>(value)); }

// Base elements to table numbers.
struct ContextOf {
  __m128i shift;
  __m512i mask;
  __m512i first;
  __m512i last;

  explicit ContextOf(const DeltaRule& rule)
      : shift(_mm_cvtsi32_si128(static_cast<int>(rule.element.context_shift))),
        mask(set16(rule.element.context_mask)),
        first(set16(rule.context_base)),
        last(set16(rule.contexts - 1)) {}

  TEXTNLP_FAST_INLINE __m512i operator()(__m512i base) const {
    const __m512i field = _mm512_and_si512(_mm512_srl_epi16(base, shift), mask);
    return _mm512_min_epu16(_mm512_subs_epu16(field, first), last);
  }
};

// Sign-magnitude to ordered integers and back. With kFloat false both leave the bits alone.
template <bool kFloat>
TEXTNLP_FAST_INLINE __m512i ordered(__m512i bits) {
  if (!kFloat) return bits;
  // bits ^ (sign | top)
  return _mm512_ternarylogic_epi64(bits, _mm512_srai_epi16(bits, 15), set16(0x8000), 0x1e);
}

template <bool kFloat>
TEXTNLP_FAST_INLINE __m512i unordered(__m512i value) {
  if (!kFloat) return value;
  // Top bit set: flip it. Else flip all.
  return _mm512_ternarylogic_epi64(value, _mm512_srai_epi16(value, 15), set16(0x8000), 0x4b);
}

// floor(log2) of every lane that is not zero.
TEXTNLP_FAST_INLINE __m512i log2_16(__m512i value) {
  const __m512i even = _mm512_lzcnt_epi32(_mm512_and_si512(value, _mm512_set1_epi32(0xffff)));
  const __m512i odd = _mm512_lzcnt_epi32(_mm512_srli_epi32(value, 16));
  return _mm512_sub_epi16(set16(31), _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
}

struct Tokens {
  __m512i token;
  __m512i raw;       // value of the raw bits
  __m512i raw_bits;  // how many, 0 for direct tokens
};

struct Tokenizer {
  __m512i direct;
  __m512i twice_direct_1;  // first bucket token
  __m512i shift_origin;    // 2^mantissa - direct - 1
  __m512i mantissa;
  __m128i mantissa_count;
  __m512i lead_mask;

  explicit Tokenizer(TokenScheme scheme)
      : direct(set16(scheme.direct)),
        twice_direct_1(set16(2 * scheme.direct + 1)),
        shift_origin(set16((1u << scheme.mantissa) - scheme.direct - 1)),
        mantissa(set16(scheme.mantissa)),
        mantissa_count(_mm_cvtsi32_si128(static_cast<int>(scheme.mantissa))),
        lead_mask(set16((1u << scheme.mantissa) - 1)) {}

  template <bool kRaw>
  TEXTNLP_FAST_INLINE Tokens operator()(__m512i residual) const {
    const __m512i size = _mm512_abs_epi16(residual);
    const __m512i negative = _mm512_srli_epi16(residual, 15);
    const __mmask32 bucket = _mm512_cmpgt_epu16_mask(size, direct);
    // 0, +1, -1, +2, -2, ...: twice the size, less one for the positive.
    Tokens tokens;
    const __m512i doubled = _mm512_add_epi16(size, size);
    tokens.token =
        _mm512_mask_sub_epi16(doubled, _mm512_cmpgt_epi16_mask(residual, _mm512_setzero_si512()), doubled, set16(1));
    tokens.raw = _mm512_setzero_si512();
    tokens.raw_bits = _mm512_setzero_si512();
    if (bucket == 0) return tokens;
    const __m512i shifted = _mm512_add_epi16(size, shift_origin);
    const __m512i low = _mm512_sub_epi16(log2_16(shifted), mantissa);
    const __m512i lead = _mm512_and_si512(_mm512_srlv_epi16(shifted, low), lead_mask);
    const __m512i number =
        _mm512_add_epi16(_mm512_add_epi16(twice_direct_1, _mm512_sll_epi16(low, mantissa_count)), lead);
    tokens.token = _mm512_mask_mov_epi16(tokens.token, bucket, number);
    if (kRaw) {
      const __m512i place = _mm512_andnot_si512(_mm512_sllv_epi16(set16(0xffff), low), shifted);
      tokens.raw = _mm512_maskz_mov_epi16(bucket, _mm512_or_si512(_mm512_add_epi16(place, place), negative));
      tokens.raw_bits = _mm512_maskz_add_epi16(bucket, low, set16(1));
    }
    return tokens;
  }
};

template <bool kFloat>
void survey_steps(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, ElementRule rule,
                  SparseWork& work, DeltaSurvey& survey) {
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(rule.context_shift));
  const __m512i mask = set16(rule.context_mask);
  __m512i most = _mm512_setzero_si512();
  std::size_t packed = 0;
  for (std::size_t step = 0; step < steps; ++step) {
    const __m512i from = load16(base, step * kLanes);
    const __m512i to = load16(target, step * kLanes);
    const __m512i field = _mm512_and_si512(_mm512_srl_epi16(from, shift), mask);
    most = _mm512_max_epu16(most, field);
    const __mmask32 changed = _mm512_cmpneq_epi16_mask(to, from);
    if (step % kSampleSteps == 0) {
      // Changed lanes go where nobody looks: no branch depends on them.
      alignas(64) std::uint16_t sample[kLanes];
      _mm512_store_si512(sample, _mm512_mask_mov_epi16(field, changed, set16(kMaxContextField)));
      for (const std::uint16_t one : sample) survey.unchanged[one] += kSampleSteps;
    }
    work.masks[step] = changed;
    if (packed <= work.capacity) {
      const __m512i residual = _mm512_sub_epi16(ordered<kFloat>(to), ordered<kFloat>(from));
      _mm512_storeu_si512(work.residual + packed, _mm512_maskz_compress_epi16(changed, residual));
      _mm512_storeu_si512(work.field + packed, _mm512_maskz_compress_epi16(changed, field));
    }
    packed += static_cast<unsigned>(__builtin_popcount(changed));
  }
  work.packed = packed;
  survey.changed = packed;
  alignas(64) std::uint16_t lanes[kLanes];
  _mm512_store_si512(lanes, most);
  for (const std::uint16_t lane : lanes) survey.max_context = lane > survey.max_context ? lane : survey.max_context;
}

void delta_survey(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                  ElementRule rule, SparseWork* work, DeltaSurvey* survey) {
  if (element_size != 2) {
    portable::delta_survey(element_size, target, base, count, rule, work, survey);
    return;
  }
  std::memset(survey, 0, sizeof *survey);
  const std::size_t steps = count / kLanes;
  rule.is_float ? survey_steps<true>(target, base, steps, rule, *work, *survey)
                : survey_steps<false>(target, base, steps, rule, *work, *survey);
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
    const Tokens tokens =
        tokenize.template operator()<false>(_mm512_sub_epi16(ordered<kFloat>(to), ordered<kFloat>(from)));
    cells.add(_mm512_or_si512(_mm512_slli_epi16(context_of(from), 6), tokens.token), counts);
  }
  cells.flush(counts);
}

// The packed elements, thirty-two at a time.
void histogram_packed(const DeltaRule& rule, SparseWork& work, TokenCounts* counts) {
  const Tokenizer tokenize(rule.scheme);
  const __m512i first = set16(rule.context_base);
  const __m512i last = set16(rule.contexts - 1);
  __m512i any_raw = _mm512_setzero_si512();
  for (std::size_t i = 0; i < work.packed; i += kLanes) {
    const Tokens tokens = tokenize.template operator()<true>(_mm512_loadu_si512(work.residual + i));
    const __m512i context = _mm512_min_epu16(_mm512_subs_epu16(_mm512_loadu_si512(work.field + i), first), last);
    _mm512_storeu_si512(work.index + i, _mm512_or_si512(_mm512_slli_epi16(context, 7), tokens.token));
    _mm512_storeu_si512(work.raw_bits + i, tokens.raw_bits);
    const std::size_t left = work.packed - i < kLanes ? work.packed - i : kLanes;
    const __mmask32 valid = _bzhi_u32(0xffffffffu, static_cast<unsigned>(left));
    any_raw = _mm512_or_si512(any_raw, _mm512_maskz_mov_epi16(valid, tokens.raw_bits));
    for (std::size_t lane = 0; lane < left; ++lane) {
      const unsigned index = work.index[i + lane];
      ++counts[index >> 7][index & 127];
    }
  }
  work.has_raw = _mm512_test_epi16_mask(any_raw, any_raw) != 0;
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
    const Tokens tokens =
        tokenize.template operator()<true>(_mm512_sub_epi16(ordered<kFloat>(to), ordered<kFloat>(from)));
    const Symbols coded =
        gather_symbols(tables.symbols[0], _mm512_or_si512(_mm512_slli_epi16(context_of(from), 7), tokens.token));
    put_raw(lanes, tokens, words);
    writer.put_symbols<true>(lanes, coded.freq, coded.start, words);
  });
}

// Unchanged lanes take token 0 of their context, found by permute; the changed ones are spread from `work`, where their
// symbols lie packed.
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
      packed -= static_cast<unsigned>(__builtin_popcount(changed));
      if (work.has_raw && changed != 0) {
        Tokens tokens;
        tokens.raw_bits = _mm512_maskz_expand_epi16(changed, _mm512_loadu_si512(work.raw_bits + packed));
        if (_mm512_test_epi16_mask(tokens.raw_bits, tokens.raw_bits) != 0) {
          tokens.raw = _mm512_maskz_expand_epi16(changed, _mm512_loadu_si512(work.residual + packed));
          put_raw(lanes, tokens, words);
        }
      }
      const __m512i zeros = _mm512_permutexvar_epi16(context_of(load16(base, at)), zero_freq);
      const __m512i freq = _mm512_mask_expand_epi16(zeros, changed, _mm512_loadu_si512(work.index + packed));
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
    const __m512i size = _mm512_add_epi16(base, _mm512_srli_epi16(raw, 1));
    return _mm512_mask_sub_epi16(size, _mm512_test_epi16_mask(raw, set16(1)), _mm512_setzero_si512(), size);
  }
};

template <bool kFloat>
TEXTNLP_FAST_INLINE void emit(std::uint8_t* out, std::size_t element, __m512i base, __m512i residual) {
  _mm512_storeu_si512(out + 2 * element, unordered<kFloat>(_mm512_add_epi16(ordered<kFloat>(base), residual)));
}

struct DenseReader {
  const std::uint32_t* slots;
  __m128i log;
  __m512i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  DenseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slots(tables.slots),
        log(_mm_cvtsi32_si128(static_cast<int>(rule.table_log))),
        slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(make_shifts(rule.table_log)),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {}

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(Lanes& lanes, Stream& stream, const std::uint8_t* base, std::uint8_t* out,
                                std::size_t at) const {
    const __m512i from = load16(base, at);
    const __m512i slot = _mm512_and_si512(lanes.low, slot_mask);
    const Entries entries = gather_entries(slots, _mm512_or_si512(_mm512_sll_epi16(context_of(from), log), slot));
    lanes = advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    emit<kFloat>(out, at, from, residual.take<false>(entries.symbol, lanes, stream));
  }
};

struct SparseReader {
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

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(Lanes& lanes, Stream& stream, const std::uint8_t* base, std::uint8_t* out,
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
    emit<kFloat>(out, at, from, residual.take<true>(token, lanes, stream));
  }

 private:
  // Compares with the starts of the tokens in order, four at a time: the likely ones come first, and a branch a token
  // would be guessed wrong more often than not.
  TEXTNLP_FAST_INLINE __m512i changed_tokens(__m512i context, __m512i slot, __m512i zero, Lanes& lanes) const {
    __m512i start = _mm512_setzero_si512();
    __m512i end = zero;
    __m512i token = _mm512_setzero_si512();
    __m512i next = zero;  // start of token t
    for (unsigned t = 1; t < kStarts; t += 4) {
#pragma GCC unroll 4
      for (unsigned k = 0; k < 4; ++k) {
        const __mmask32 reached = _mm512_cmpge_epu16_mask(slot, next);
        const __m512i after = _mm512_permutexvar_epi16(context, _mm512_load_si512(starts[t + k + 1]));
        start = _mm512_mask_mov_epi16(start, reached, next);
        end = _mm512_mask_mov_epi16(end, reached, after);
        token = _mm512_mask_mov_epi16(token, reached, set16(t + k));
        next = after;
      }
      if (_mm512_cmpge_epu16_mask(slot, next) == 0) break;
    }
    lanes = advance(lanes, _mm512_sub_epi16(end, start), _mm512_sub_epi16(slot, start), shifts);
    return token;
  }
};

template <bool kFloat, unsigned kWays, class Reader>
bool decode_delta_ways(SegmentInput* segments, const DeltaRule& rule, const DeltaDecodeTables& tables,
                       const Reader& reader, const std::uint8_t* base, std::uint8_t* out) {
  Stream streams[kWays];
  Lanes lanes[kWays];
  std::size_t shared = segments[0].count / kLanes;
  for (unsigned w = 0; w < kWays; ++w) {
    streams[w].open(segments[w].words, segments[w].end);
    lanes[w] = load_lanes(segments[w].states);
    const std::size_t steps = segments[w].count / kLanes;
    shared = steps < shared ? steps : shared;
  }
  for (std::size_t step = 0; step < shared; ++step) {
#pragma GCC unroll 4
    for (unsigned w = 0; w < kWays; ++w) {
      if (!streams[w].ready()) return false;
      reader.template step<kFloat>(lanes[w], streams[w], base, out, segments[w].begin + step * kLanes);
    }
  }
  for (unsigned w = 0; w < kWays; ++w) {
    SegmentInput& segment = segments[w];
    std::size_t step = shared;
    for (; step < segment.count / kLanes; ++step) {
      if (!streams[w].ready()) return false;
      reader.template step<kFloat>(lanes[w], streams[w], base, out, segment.begin + step * kLanes);
    }
    store_lanes(segment.states, lanes[w]);
    if (streams[w].overrun()) return false;
    WordReader words{streams[w].at, streams[w].end, false};
    scalar::delta_get<std::uint16_t>(base + 2 * segment.begin, out + 2 * segment.begin, step * kLanes, segment.count,
                                     rule, tables, segment.states, words);
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

bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out) {
  // More tokens than a register holds, or a bucket of sixteen raw bits, which a 16-bit shift takes for none: valid, but
  // nothing that our encoder writes.
  const unsigned most_bits = raw_bits_of(tables->tokens - 1, rule->scheme);
  if (element_size != 2 || tables->tokens > 64 || most_bits > 15) {
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

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

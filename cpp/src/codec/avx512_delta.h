// Deltas of two-byte elements on AVX-512. Other sizes take the portable kernels.
#pragma once
#include "codec/avx512_bytes.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

inline __m512i load16(const std::uint8_t* data, std::size_t element) { return _mm512_loadu_si512(data + 2 * element); }

inline __m512i set16(unsigned value) { return _mm512_set1_epi16(static_cast<short>(value)); }

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

  inline __m512i operator()(__m512i base) const {
    const __m512i field = _mm512_and_si512(_mm512_srl_epi16(base, shift), mask);
    return _mm512_min_epu16(_mm512_subs_epu16(field, first), last);
  }
};

// Sign-magnitude to ordered integers and back. With kFloat false both leave the bits alone.
template <bool kFloat>
inline __m512i ordered(__m512i bits) {
  if (!kFloat) return bits;
  return _mm512_xor_si512(bits, _mm512_or_si512(_mm512_srai_epi16(bits, 15), set16(0x8000)));
}

template <bool kFloat>
inline __m512i unordered(__m512i value) {
  if (!kFloat) return value;
  // Top bit set: flip it. Else flip all.
  return _mm512_ternarylogic_epi64(value, _mm512_srai_epi16(value, 15), set16(0x8000), 0x4b);
}

// floor(log2) of every lane that is not zero.
inline __m512i log2_16(__m512i value) {
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
  inline Tokens operator()(__m512i residual) const {
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

std::uint64_t count_changed(unsigned element_size, const std::uint8_t* a, const std::uint8_t* b, std::size_t count) {
  if (element_size != 2) return portable::count_changed(element_size, a, b, count);
  std::uint64_t changed = 0;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    changed += static_cast<unsigned>(__builtin_popcount(_mm512_cmpneq_epi16_mask(load16(a, i), load16(b, i))));
  }
  return changed + portable::count_changed(2, a + 2 * i, b + 2 * i, count - i);
}

unsigned max_context(unsigned element_size, const std::uint8_t* base, std::size_t count, ElementRule rule) {
  if (element_size != 2) return portable::max_context(element_size, base, count, rule);
  const __m512i mask = set16(rule.context_mask << rule.context_shift);
  __m512i most = _mm512_setzero_si512();
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    most = _mm512_max_epu16(most, _mm512_and_si512(load16(base, i), mask));
  }
  alignas(64) std::uint16_t lanes[kLanes];
  _mm512_store_si512(lanes, most);
  unsigned largest = portable::max_context(2, base + 2 * i, count - i, rule);
  for (const std::uint16_t lane : lanes) {
    const unsigned field = static_cast<unsigned>(lane >> rule.context_shift);
    largest = field > largest ? field : largest;
  }
  return largest;
}

template <bool kFloat>
void histogram_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                     TokenCounts* counts) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  // Two tables in turn: an increment waits for the one before it to the same address.
  constexpr unsigned kCells = kMaxContexts * kMaxTokens;
  static thread_local std::uint32_t cells[2][kCells];
  std::memset(cells, 0, sizeof cells);
  alignas(64) std::uint16_t index[kLanes];
  for (std::size_t step = 0; step < steps; ++step) {
    const __m512i from = load16(base, step * kLanes);
    const __m512i to = load16(target, step * kLanes);
    const Tokens tokens =
        tokenize.template operator()<false>(_mm512_sub_epi16(ordered<kFloat>(to), ordered<kFloat>(from)));
    _mm512_store_si512(index, _mm512_or_si512(_mm512_slli_epi16(context_of(from), 7), tokens.token));
#pragma GCC unroll 16
    for (unsigned lane = 0; lane < kLanes; lane += 2) {
      ++cells[0][index[lane]];
      ++cells[1][index[lane + 1]];
    }
  }
  for (unsigned c = 0; c < kMaxContexts; ++c) {
    for (unsigned t = 0; t < kMaxTokens; ++t) {
      counts[c][t] += cells[0][c * kMaxTokens + t] + cells[1][c * kMaxTokens + t];
    }
  }
}

template <bool kFloat>
void histogram_sparse(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                      TokenCounts* counts) {
  const ContextOf context_of(rule);
  alignas(64) std::uint16_t contexts[kLanes];
  for (std::size_t step = 0; step < steps; ++step) {
    const __m512i from = load16(base, step * kLanes);
    const __m512i to = load16(target, step * kLanes);
    __mmask32 changed = _mm512_cmpneq_epi16_mask(to, from);
    const bool sampled = step % kSampleSteps == 0;
    if (!sampled && changed == 0) continue;
    _mm512_store_si512(contexts, context_of(from));
    if (sampled) {
      for (__mmask32 same = _knot_mask32(changed); same != 0; same &= same - 1) {
        counts[contexts[__builtin_ctz(same)]][0] += kSampleSteps;
      }
    }
    for (; changed != 0; changed &= changed - 1) {
      const auto lane = static_cast<unsigned>(__builtin_ctz(changed));
      const std::size_t i = step * kLanes + lane;
      const std::uint16_t residual =
          residual_of(scalar::load<std::uint16_t>(target, i), scalar::load<std::uint16_t>(base, i), kFloat);
      ++counts[contexts[lane]][token_of(residual, rule.scheme).token];
    }
  }
}

void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, bool sparse, TokenCounts* counts) {
  if (element_size != 2) {
    portable::delta_histogram(element_size, target, base, count, rule, sparse, counts);
    return;
  }
  const std::size_t steps = count / kLanes;
  if (rule->element.is_float) {
    sparse ? histogram_sparse<true>(target, base, steps, *rule, counts)
           : histogram_dense<true>(target, base, steps, *rule, counts);
  } else {
    sparse ? histogram_sparse<false>(target, base, steps, *rule, counts)
           : histogram_dense<false>(target, base, steps, *rule, counts);
  }
  scalar::delta_histogram<std::uint16_t>(target, base, steps * kLanes, count, *rule, sparse, counts);
}

// Raw bits of a step, into the states.
inline void put_raw(WideLanes& lanes, const Tokens& tokens, std::uint16_t*& words) {
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
void encode_dense(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                  const DeltaEncodeTables& tables, WideLanes& lanes, std::uint16_t*& words) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  const __m128i down = _mm_cvtsi32_si128(static_cast<int>(16 - rule.table_log));
  const __m128i log = _mm_cvtsi32_si128(static_cast<int>(rule.table_log));
  const __m512i scale = _mm512_set1_epi32(1 << rule.table_log);
  const EncodeSymbol* const symbols = tables.symbols[0];
  for (std::size_t step = steps; step-- > 0;) {
    const __m512i from = load16(base, step * kLanes);
    const __m512i to = load16(target, step * kLanes);
    const Tokens tokens =
        tokenize.template operator()<true>(_mm512_sub_epi16(ordered<kFloat>(to), ordered<kFloat>(from)));
    const __m512i index = _mm512_or_si512(_mm512_slli_epi16(context_of(from), 7), tokens.token);
    const __m512i a = _mm512_i32gather_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(index)), symbols, 4);
    const __m512i b = _mm512_i32gather_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(index, 1)), symbols, 4);
    const __m512i freq =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
    const __m512i start = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16))),
                                             _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1);
    if (_mm512_test_epi16_mask(tokens.raw_bits, tokens.raw_bits) != 0) put_raw(lanes, tokens, words);
    put_symbols(lanes, freq, start, down, log, scale, words);
  }
}

// Most steps change nothing: their lanes take token 0 of their context, found by permute. The others go one by one.
template <bool kFloat>
void encode_sparse(const std::uint8_t* target, const std::uint8_t* base, std::size_t steps, const DeltaRule& rule,
                   const DeltaEncodeTables& tables, WideLanes& lanes, std::uint16_t*& words) {
  const ContextOf context_of(rule);
  const Tokenizer tokenize(rule.scheme);
  alignas(64) std::uint16_t zero_freqs[kMaxContexts] = {};
  for (unsigned c = 0; c < rule.contexts; ++c) zero_freqs[c] = tables.symbols[c][0].freq;
  const __m512i zero_freq = _mm512_load_si512(zero_freqs);
  const __m128i down = _mm_cvtsi32_si128(static_cast<int>(16 - rule.table_log));
  const __m128i log = _mm_cvtsi32_si128(static_cast<int>(rule.table_log));
  const __m512i scale = _mm512_set1_epi32(1 << rule.table_log);
  for (std::size_t step = steps; step-- > 0;) {
    const __m512i from = load16(base, step * kLanes);
    const __m512i to = load16(target, step * kLanes);
    const __m512i context = context_of(from);
    const __mmask32 changed = _mm512_cmpneq_epi16_mask(to, from);
    __m512i freq = _mm512_permutexvar_epi16(context, zero_freq);
    __m512i start = _mm512_setzero_si512();
    if (changed != 0) {
      const Tokens tokens =
          tokenize.template operator()<true>(_mm512_sub_epi16(ordered<kFloat>(to), ordered<kFloat>(from)));
      if (_mm512_test_epi16_mask(tokens.raw_bits, tokens.raw_bits) != 0) put_raw(lanes, tokens, words);
      alignas(64) std::uint16_t freqs[kLanes];
      alignas(64) std::uint16_t starts[kLanes];
      alignas(64) std::uint16_t index[kLanes];
      _mm512_store_si512(freqs, freq);
      _mm512_store_si512(starts, start);
      _mm512_store_si512(index, _mm512_or_si512(_mm512_slli_epi16(context, 7), tokens.token));
      for (__mmask32 left = changed; left != 0; left &= left - 1) {
        const auto lane = static_cast<unsigned>(__builtin_ctz(left));
        const EncodeSymbol& symbol = tables.symbols[0][index[lane]];
        freqs[lane] = symbol.freq;
        starts[lane] = symbol.start;
      }
      freq = _mm512_load_si512(freqs);
      start = _mm512_load_si512(starts);
    }
    put_symbols(lanes, freq, start, down, log, scale, words);
  }
}

void delta_encode(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                  const DeltaRule* rule, const DeltaEncodeTables* tables, SegmentOutput* out) {
  if (element_size != 2 || rule->table_log < kMinVectorLog) {
    portable::delta_encode(element_size, target, base, count, rule, tables, out);
    return;
  }
  const std::size_t steps = count / kLanes;
  scalar::reset(out->states);
  scalar::delta_put<std::uint16_t>(target, base, steps * kLanes, count, *rule, *tables, out->states, out->words);
  WideLanes lanes = load_wide(out->states);
  std::uint16_t* words = out->words;
  const bool sparse = rule->table_log > kMaxSlotLog;
  if (rule->element.is_float) {
    sparse ? encode_sparse<true>(target, base, steps, *rule, *tables, lanes, words)
           : encode_dense<true>(target, base, steps, *rule, *tables, lanes, words);
  } else {
    sparse ? encode_sparse<false>(target, base, steps, *rule, *tables, lanes, words)
           : encode_dense<false>(target, base, steps, *rule, *tables, lanes, words);
  }
  store_wide(out->states, lanes);
  out->words = words;
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
  inline __m512i operator()(__m512i token, Lanes& lanes, Stream& stream) const {
    const __m512i base = _mm512_permutex2var_epi16(origin[0], token, origin[1]);
    // Byte permute: the upper byte of a token is 0, and token 0 has no raw bits.
    const __m512i bits = _mm512_permutexvar_epi8(token, raw_bits);
    const __m512i raw = _mm512_andnot_si512(_mm512_sllv_epi16(set16(0xffff), bits), lanes.low);
    lanes.low = _mm512_shrdv_epi16(lanes.low, lanes.high, bits);
    lanes.high = _mm512_srlv_epi16(lanes.high, bits);
    refill(lanes, stream);
    const __m512i size = _mm512_add_epi16(base, _mm512_srli_epi16(raw, 1));
    return _mm512_mask_sub_epi16(size, _mm512_test_epi16_mask(raw, set16(1)), _mm512_setzero_si512(), size);
  }
};

template <bool kFloat>
inline void emit(std::uint8_t* out, std::size_t element, __m512i base, __m512i residual) {
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
  inline void step(Lanes& lanes, Stream& stream, const std::uint8_t* base, std::uint8_t* out, std::size_t at) const {
    const __m512i from = load16(base, at);
    const __m512i slot = _mm512_and_si512(lanes.low, slot_mask);
    const Entries entries = gather_entries(slots, _mm512_or_si512(_mm512_sll_epi16(context_of(from), log), slot));
    lanes = advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    emit<kFloat>(out, at, from, residual(entries.symbol, lanes, stream));
  }
};

struct SparseReader {
  alignas(64) std::uint16_t starts[64 + 1][kMaxContexts];  // by token
  unsigned tokens;
  __m512i zero_freq;
  __m512i slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  SparseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : tokens(tables.tokens),
        slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(make_shifts(rule.table_log)),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {
    alignas(64) std::uint16_t zeros[kMaxContexts] = {};
    for (unsigned c = 0; c < rule.contexts; ++c) {
      zeros[c] = tables.zero_freq[c];
      for (unsigned t = 0; t <= 64; ++t) starts[t][c] = tables.cumulative[c][t];
    }
    zero_freq = _mm512_load_si512(zeros);
  }

  template <bool kFloat>
  inline void step(Lanes& lanes, Stream& stream, const std::uint8_t* base, std::uint8_t* out, std::size_t at) const {
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
    const __m512i token = changed_tokens(context, slot, zero, changed, lanes);
    refill(lanes, stream);
    emit<kFloat>(out, at, from, residual(token, lanes, stream));
  }

 private:
  // Tries tokens in order until every changed lane has its own; the likely ones come first.
  inline __m512i changed_tokens(__m512i context, __m512i slot, __m512i zero, __mmask32 changed, Lanes& lanes) const {
    __m512i freq = zero;
    __m512i start = _mm512_setzero_si512();
    __m512i token = _mm512_setzero_si512();
    __m512i from = zero;
    for (unsigned t = 1; changed != 0 && t < tokens; ++t) {
      const __m512i until = _mm512_permutexvar_epi16(context, _mm512_load_si512(starts[t + 1]));
      const __mmask32 here = _mm512_mask_cmplt_epu16_mask(changed, slot, until);
      freq = _mm512_mask_sub_epi16(freq, here, until, from);
      start = _mm512_mask_mov_epi16(start, here, from);
      token = _mm512_mask_mov_epi16(token, here, set16(t));
      changed = _kandn_mask32(here, changed);
      from = until;
    }
    lanes = advance(lanes, freq, _mm512_sub_epi16(slot, start), shifts);
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
  // More tokens than a register holds: only streams that our encoder does not write.
  if (element_size != 2 || tables->tokens > 64) {
    return portable::delta_decode(element_size, segments, count, rule, tables, base, out);
  }
  if (rule->element.is_float) {
    return tables->slots != nullptr ? decode_delta<true, DenseReader>(segments, count, *rule, *tables, base, out)
                                    : decode_delta<true, SparseReader>(segments, count, *rule, *tables, base, out);
  }
  return tables->slots != nullptr ? decode_delta<false, DenseReader>(segments, count, *rule, *tables, base, out)
                                  : decode_delta<false, SparseReader>(segments, count, *rule, *tables, base, out);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

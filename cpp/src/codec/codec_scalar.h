// The codec kernels in plain C++: the portable set, and the tails of the others. Everything here has internal linkage,
// so that each instruction set gets a copy compiled for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codec/codec_kernels.h"

namespace textnlp_fast {
namespace {
namespace scalar {

template <class U>
inline U load(const std::uint8_t* data, std::size_t index) {
  U value;
  std::memcpy(&value, data + index * sizeof(U), sizeof(U));
  return value;
}

template <class U>
inline void store(std::uint8_t* data, std::size_t index, U value) {
  std::memcpy(data + index * sizeof(U), &value, sizeof(U));
}

template <class U>
inline unsigned context_of(U base, const DeltaRule& rule) {
  const unsigned field = context_field(base, rule.element);
  const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
  return context < rule.contexts ? context : rule.contexts - 1;
}

template <class U>
void delta_survey(const std::uint8_t* target, const std::uint8_t* base, std::size_t begin, std::size_t end,
                  ElementRule rule, DeltaSurvey& survey) {
  for (std::size_t i = begin; i < end; ++i) {
    const U from = load<U>(base, i);
    const bool changed = load<U>(target, i) != from;
    survey.changed += changed ? 1 : 0;
    const unsigned field = context_field(from, rule);
    survey.max_context = field > survey.max_context ? field : survey.max_context;
    if (!changed && i / kLanes % kSampleSteps == 0) survey.unchanged[field] += kSampleSteps;
  }
}

template <class U>
void delta_histogram(const std::uint8_t* target, const std::uint8_t* base, std::size_t begin, std::size_t end,
                     const DeltaRule& rule, bool sparse, TokenCounts* counts) {
  for (std::size_t i = begin; i < end; ++i) {
    const U from = load<U>(base, i);
    const U to = load<U>(target, i);
    if (sparse && to == from) continue;
    ++counts[context_of(from, rule)][token_of(residual_of(to, from, rule.element.is_float), rule.scheme).token];
  }
}

// Codes elements [begin, end) of a segment, last first. Lane = index % 32.
template <class U>
void delta_put(const std::uint8_t* target, const std::uint8_t* base, std::size_t begin, std::size_t end,
               const DeltaRule& rule, const DeltaEncodeTables& tables, std::uint32_t* states, std::uint16_t*& words) {
  // A step is the elements that share index / 32. The reader takes all tokens of a step, then all raw bits: the writer
  // goes backwards.
  std::size_t step_end = end;
  while (step_end > begin) {
    std::size_t step_begin = (step_end - 1) / kLanes * kLanes;
    if (step_begin < begin) step_begin = begin;
    Token coded[kLanes];
    unsigned contexts[kLanes];
    for (std::size_t i = step_begin; i < step_end; ++i) {
      const U from = load<U>(base, i);
      coded[i % kLanes] = token_of(residual_of(load<U>(target, i), from, rule.element.is_float), rule.scheme);
      contexts[i % kLanes] = context_of(from, rule);
    }
    for (unsigned chunk = (sizeof(U) * 8 + 15) / 16; chunk-- > 0;) {
      for (std::size_t i = step_end; i-- > step_begin;) {
        const Token& token = coded[i % kLanes];
        if (token.raw_bits <= chunk * 16) continue;
        const unsigned left = token.raw_bits - chunk * 16;
        const unsigned bits = left < 16 ? left : 16;
        const auto value = static_cast<std::uint32_t>(token.raw >> (chunk * 16)) & ((1u << bits) - 1);
        states[i % kLanes] = rans_put_raw(states[i % kLanes], value, bits, words);
      }
    }
    for (std::size_t i = step_end; i-- > step_begin;) {
      const EncodeSymbol& symbol = tables.symbols[contexts[i % kLanes]][coded[i % kLanes].token];
      states[i % kLanes] = rans_put(states[i % kLanes], symbol.freq, symbol.start, rule.table_log, words);
    }
    step_end = step_begin;
  }
}

// Finds the token that holds `slot`: tokens are few and the likely ones come first.
inline unsigned find_token(const std::uint16_t* cumulative, std::uint32_t slot) {
  unsigned token = 0;
  while (cumulative[token + 1] <= slot) ++token;
  return token;
}

struct Decoded {
  std::uint32_t state;
  unsigned token;
};

inline Decoded delta_take(std::uint32_t state, unsigned context, const DeltaRule& rule,
                          const DeltaDecodeTables& tables) {
  const std::uint32_t slot = state & ((1u << rule.table_log) - 1);
  const std::uint32_t zero = tables.zero_freq[context];
  if (slot < zero) return {zero * (state >> rule.table_log) + slot, 0};
  if (tables.slots != nullptr) {
    const std::uint32_t entry = tables.slots[(static_cast<std::size_t>(context) << rule.table_log) | slot];
    return {entry_freq(entry) * (state >> rule.table_log) + entry_offset(entry), entry_symbol(entry)};
  }
  const std::uint16_t* cumulative = tables.cumulative[context];
  const unsigned token = find_token(cumulative, slot);
  const std::uint32_t start = cumulative[token];
  return {(cumulative[token + 1] - start) * (state >> rule.table_log) + slot - start, token};
}

// Decodes elements [begin, end) of a segment; `begin` is the start of a step.
template <class U>
void delta_get(const std::uint8_t* base, std::uint8_t* out, std::size_t begin, std::size_t end, const DeltaRule& rule,
               const DeltaDecodeTables& tables, std::uint32_t* states, WordReader& words) {
  for (std::size_t step = begin; step < end; step += kLanes) {
    const auto lanes = static_cast<unsigned>(end - step < kLanes ? end - step : kLanes);
    unsigned token[kLanes];
    std::uint64_t raw[kLanes];
    unsigned most = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) {
      const Decoded decoded = delta_take(states[lane], context_of(load<U>(base, step + lane), rule), rule, tables);
      token[lane] = decoded.token;
      states[lane] = rans_refill(decoded.state, words);
      raw[lane] = 0;
      const unsigned bits = raw_bits_of(decoded.token, rule.scheme);
      most = bits > most ? bits : most;
    }
    for (unsigned chunk = 0; chunk * 16 < most; ++chunk) {
      for (unsigned lane = 0; lane < lanes; ++lane) {
        const unsigned all = raw_bits_of(token[lane], rule.scheme);
        if (all <= chunk * 16) continue;
        const unsigned bits = all - chunk * 16 < 16 ? all - chunk * 16 : 16;
        raw[lane] |= static_cast<std::uint64_t>(states[lane] & ((1u << bits) - 1)) << (chunk * 16);
        states[lane] = rans_refill(states[lane] >> bits, words);
      }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) {
      const U residual = residual_of_token<U>(token[lane], raw[lane], rule.scheme);
      store<U>(out, step + lane, apply_residual(load<U>(base, step + lane), residual, rule.element.is_float));
    }
  }
}

inline bool finished(const std::uint32_t* states, const WordReader& words) {
  bool at_floor = !words.overrun && words.cursor == words.end;
  for (unsigned lane = 0; lane < kLanes; ++lane) at_floor = at_floor && states[lane] == kStateFloor;
  return at_floor;
}

template <class U>
bool delta_decode(SegmentInput* segments, unsigned segment_count, const DeltaRule& rule,
                  const DeltaDecodeTables& tables, const std::uint8_t* base, std::uint8_t* out) {
  for (unsigned s = 0; s < segment_count; ++s) {
    SegmentInput& segment = segments[s];
    WordReader words{segment.words, segment.end, false};
    const std::size_t offset = segment.begin * sizeof(U);
    delta_get<U>(base + offset, out + offset, 0, segment.count, rule, tables, segment.states, words);
    if (!finished(segment.states, words)) return false;
  }
  return true;
}

inline void reset(std::uint32_t* states) {
  for (unsigned lane = 0; lane < kLanes; ++lane) states[lane] = kStateFloor;
}

// Bytes of one plane, elements [begin, end), last first.
inline void bytes_put(const std::uint8_t* data, std::size_t begin, std::size_t end, const EncodeSymbol* symbols,
                      unsigned table_log, std::uint32_t* states, std::uint16_t*& words) {
  for (std::size_t i = end; i-- > begin;) {
    const EncodeSymbol& symbol = symbols[data[i]];
    states[i % kLanes] = rans_put(states[i % kLanes], symbol.freq, symbol.start, table_log, words);
  }
}

inline unsigned byte_take(std::uint32_t& state, const ByteDecodeTable& table, WordReader& words) {
  const std::uint32_t entry = table.slots[state & ((1u << table.table_log) - 1)];
  state = rans_refill(entry_freq(entry) * (state >> table.table_log) + entry_offset(entry), words);
  return entry_symbol(entry);
}

inline std::uint16_t join(unsigned upper, unsigned lower, bool rotate) {
  const unsigned joined = upper << 8 | lower;
  return static_cast<std::uint16_t>(rotate ? joined >> 1 | (joined & 1) << 15 : joined);
}

}  // namespace scalar
}  // namespace
}  // namespace textnlp_fast

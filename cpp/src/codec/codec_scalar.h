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

inline unsigned context_of_field(unsigned field, const DeltaRule& rule) {
  const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
  return context < rule.contexts ? context : rule.contexts - 1;
}

template <class U>
inline unsigned context_of(U base, const DeltaRule& rule) {
  return context_of_field(context_field(base, rule.element), rule);
}

// The contexts of a delta frame whose highest field is `most`.
inline void set_contexts(DeltaRule& rule, unsigned most) {
  rule.context_base = most >= kMaxContexts ? most - (kMaxContexts - 1) : 0;
  rule.contexts = most - rule.context_base + 1;
}

template <class U>
unsigned max_field(const std::uint8_t* base, std::size_t begin, std::size_t end, ElementRule rule) {
  unsigned most = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const unsigned field = context_field(load<U>(base, i), rule);
    most = field > most ? field : most;
  }
  return most;
}

template <class U>
void delta_histogram(const std::uint8_t* target, const std::uint8_t* base, std::size_t begin, std::size_t end,
                     const DeltaRule& rule, TokenCounts* counts) {
  for (std::size_t i = begin; i < end; ++i) {
    const U from = load<U>(base, i);
    const U residual = residual_of(load<U>(target, i), from, rule.element.is_float);
    ++counts[context_of(from, rule)][token_of(residual, rule.scheme).token];
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

// The words of a segment while more are left than a step can take: no end to check, no branch to guess.
struct OpenWords {
  const std::uint8_t* cursor;
};

inline std::uint32_t refill(std::uint32_t state, WordReader& words) { return rans_refill(state, words); }

inline std::uint32_t refill(std::uint32_t state, OpenWords& words) {
  const std::uint32_t word = static_cast<std::uint32_t>(words.cursor[0]) | static_cast<std::uint32_t>(words.cursor[1])
                                                                               << 8;
  // In arithmetic: compilers make a branch of a condition, and that one is guessed wrong every few words.
  const auto need = static_cast<std::uint32_t>((std::uint64_t{state} - kStateFloor) >> 63);
  words.cursor += 2 * need;
  return state << (16 * need) | (word & (0 - need));
}

struct Decoded {
  std::uint32_t state;
  unsigned token;
};

template <bool kSlots>
inline Decoded delta_take(std::uint32_t state, unsigned context, const DeltaRule& rule,
                          const DeltaDecodeTables& tables) {
  const std::uint32_t slot = state & ((1u << rule.table_log) - 1);
  if (kSlots) {
    const std::uint32_t entry = tables.slots[(static_cast<std::size_t>(context) << rule.table_log) | slot];
    return {entry_freq(entry) * (state >> rule.table_log) + entry_offset(entry), entry_symbol(entry)};
  }
  const std::uint32_t zero = tables.zero_freq[context];
  if (slot < zero) return {zero * (state >> rule.table_log) + slot, 0};
  const std::uint16_t* cumulative = tables.cumulative[context];
  const unsigned token = find_token(cumulative, slot);
  const std::uint32_t start = cumulative[token];
  return {(cumulative[token + 1] - start) * (state >> rule.table_log) + slot - start, token};
}

// What tokens stand for.
struct TokenMeaning {
  std::uint64_t origin[kMaxTokens];
  std::uint64_t sign[kMaxTokens];  // all ones if negative
  unsigned bits[kMaxTokens];       // raw

  TokenMeaning(TokenScheme scheme, unsigned tokens) {
    for (unsigned t = 0; t < tokens; ++t) {
      origin[t] = token_origin(t, scheme);
      sign[t] = is_negative(t) ? ~std::uint64_t{0} : 0;
      bits[t] = raw_bits_of(t, scheme);
    }
  }
};

// Decodes a step of a segment, `lanes` elements from `step` on.
template <class U, bool kSlots, class Words>
inline void delta_get_step(const std::uint8_t* base, std::uint8_t* out, std::size_t step, unsigned lanes,
                           const DeltaRule& rule, const DeltaDecodeTables& tables, const TokenMeaning& meaning,
                           std::uint32_t* states, Words& words) {
  unsigned bits[kLanes];
  std::uint64_t origin[kLanes];
  std::uint64_t sign[kLanes];
  std::uint64_t raw[kLanes];
  unsigned most = 0;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const Decoded decoded =
        delta_take<kSlots>(states[lane], context_of(load<U>(base, step + lane), rule), rule, tables);
    states[lane] = refill(decoded.state, words);
    origin[lane] = meaning.origin[decoded.token];
    sign[lane] = meaning.sign[decoded.token];
    bits[lane] = meaning.bits[decoded.token];
    raw[lane] = 0;
    most = bits[lane] > most ? bits[lane] : most;
  }
  for (unsigned taken = 0; taken < most; taken += 16) {
    for (unsigned lane = 0; lane < lanes; ++lane) {
      const unsigned left = bits[lane] > taken ? bits[lane] - taken : 0;
      const unsigned now = left < 16 ? left : 16;
      raw[lane] |= static_cast<std::uint64_t>(states[lane] & ((1u << now) - 1)) << taken;
      states[lane] = refill(states[lane] >> now, words);
    }
  }
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const U residual = static_cast<U>(origin[lane] + ((raw[lane] ^ sign[lane]) - sign[lane]));
    store<U>(out, step + lane, apply_residual(load<U>(base, step + lane), residual, rule.element.is_float));
  }
}

template <class U, bool kSlots>
void delta_get_steps(const std::uint8_t* base, std::uint8_t* out, std::size_t begin, std::size_t end,
                     const DeltaRule& given, const DeltaDecodeTables& tables, std::uint32_t* final_states,
                     WordReader& words) {
  // Copies: stores of bytes may alias whatever has an address elsewhere.
  const DeltaRule rule = given;
  std::uint32_t states[kLanes];
  std::memcpy(states, final_states, sizeof states);
  const TokenMeaning meaning(rule.scheme, tables.tokens);
  // A word for the token of each lane, and one for every sixteen raw bits.
  constexpr std::ptrdiff_t kStepBytes = 2 * kLanes * (1 + (sizeof(U) * 8 + 15) / 16);
  std::size_t step = begin;
  OpenWords open{words.cursor};
  for (; end - step >= kLanes && words.end - open.cursor >= kStepBytes; step += kLanes) {
    delta_get_step<U, kSlots>(base, out, step, kLanes, rule, tables, meaning, states, open);
  }
  words.cursor = open.cursor;
  for (; step < end; step += kLanes) {
    const auto lanes = static_cast<unsigned>(end - step < kLanes ? end - step : kLanes);
    delta_get_step<U, kSlots>(base, out, step, lanes, rule, tables, meaning, states, words);
  }
  std::memcpy(final_states, states, sizeof states);
}

// Decodes elements [begin, end) of a segment; `begin` is the start of a step.
template <class U>
void delta_get(const std::uint8_t* base, std::uint8_t* out, std::size_t begin, std::size_t end, const DeltaRule& rule,
               const DeltaDecodeTables& tables, std::uint32_t* states, WordReader& words) {
  if (begin == end) return;
  if (tables.slots != nullptr) {
    delta_get_steps<U, true>(base, out, begin, end, rule, tables, states, words);
  } else {
    delta_get_steps<U, false>(base, out, begin, end, rule, tables, states, words);
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

template <class Words>
inline unsigned byte_take(std::uint32_t& state, const ByteDecodeTable& table, Words& words) {
  const std::uint32_t entry = table.slots[state & ((1u << table.table_log) - 1)];
  state = refill(entry_freq(entry) * (state >> table.table_log) + entry_offset(entry), words);
  return entry_symbol(entry);
}

inline std::uint16_t join(unsigned upper, unsigned lower, bool rotate) {
  const unsigned joined = upper << 8 | lower;
  return static_cast<std::uint16_t>(rotate ? joined >> 1 | (joined & 1) << 15 : joined);
}

}  // namespace scalar
}  // namespace
}  // namespace textnlp_fast

// Deltas of two-byte elements on NEON: the reader. What belongs to an element but fits a byte (context, token) is
// looked up in bytes: up to 64 of them by one instruction.
#pragma once
#include "codec/neon_bytes.h"

namespace textnlp_fast {
namespace {
namespace neon {

TEXTNLP_FAST_INLINE uint16x8_t set16(unsigned value) { return vdupq_n_u16(static_cast<std::uint16_t>(value)); }

// turned() of ordered.h: value ^ 0x7fff where the top bits differ.
template <bool kFloat>
TEXTNLP_FAST_INLINE uint16x8_t turned(uint16x8_t value, uint16x8_t base) {
  if (!kFloat) return value;
  const uint16x8_t crossed = vcltzq_s16(vreinterpretq_s16_u16(veorq_u16(value, base)));
  return veorq_u16(value, vandq_u16(crossed, set16(0x7fff)));
}

struct FieldOf {
  int16x8_t down;
  uint16x8_t mask;

  explicit FieldOf(const ElementRule& rule)
      : down(vdupq_n_s16(static_cast<std::int16_t>(-static_cast<int>(rule.context_shift)))),
        mask(set16(rule.context_mask)) {}

  TEXTNLP_FAST_INLINE uint16x8_t operator()(uint16x8_t base) const { return vandq_u16(vshlq_u16(base, down), mask); }
};

// --- the reader ------------------------------------------------------------------------------------------------------

// The context field must fit a byte.
constexpr std::uint32_t kMostContextMask = 255;

// Two registers of bytes, thirty-two in lane order.
struct Bytes {
  uint8x16_t part[2];
};

struct ContextOf {
  FieldOf field_of;
  uint8x16_t first;
  uint8x16_t last;

  explicit ContextOf(const DeltaRule& rule)
      : field_of(rule.element),
        first(vdupq_n_u8(static_cast<std::uint8_t>(rule.context_base))),
        last(vdupq_n_u8(static_cast<std::uint8_t>(rule.contexts - 1))) {}

  TEXTNLP_FAST_INLINE Bytes operator()(const Words& base) const {
    Bytes bytes;
    for (unsigned r = 0; r < 2; ++r) {
      const uint8x16_t field =
          vcombine_u8(vmovn_u16(field_of(base.part[2 * r])), vmovn_u16(field_of(base.part[2 * r + 1])));
      bytes.part[r] = vminq_u8(vqsubq_u8(field, first), last);
    }
    return bytes;
  }
};

TEXTNLP_FAST_INLINE Words zip(const Bytes& low, const Bytes& high) {
  return {{vreinterpretq_u16_u8(vzip1q_u8(low.part[0], high.part[0])),
           vreinterpretq_u16_u8(vzip2q_u8(low.part[0], high.part[0])),
           vreinterpretq_u16_u8(vzip1q_u8(low.part[1], high.part[1])),
           vreinterpretq_u16_u8(vzip2q_u8(low.part[1], high.part[1]))}};
}

TEXTNLP_FAST_INLINE Bytes narrow(const Words& words) {
  return {{vcombine_u8(vmovn_u16(words.part[0]), vmovn_u16(words.part[1])),
           vcombine_u8(vmovn_u16(words.part[2]), vmovn_u16(words.part[3]))}};
}

// A number of 16 bits for each of up to 32 contexts, lower and upper bytes apart.
struct ContextNumbers {
  std::uint8_t low[kMaxContexts];
  std::uint8_t high[kMaxContexts];

  void set(unsigned context, unsigned number) {
    low[context] = static_cast<std::uint8_t>(number);
    high[context] = static_cast<std::uint8_t>(number >> 8);
  }

  TEXTNLP_FAST_INLINE Words find(const Bytes& context) const {
    const uint8x16x2_t lows = {{vld1q_u8(low), vld1q_u8(low + 16)}};
    const uint8x16x2_t highs = {{vld1q_u8(high), vld1q_u8(high + 16)}};
    return zip({{vqtbl2q_u8(lows, context.part[0]), vqtbl2q_u8(lows, context.part[1])}},
               {{vqtbl2q_u8(highs, context.part[0]), vqtbl2q_u8(highs, context.part[1])}});
  }
};

// Tokens back to residuals: origin and raw bits of up to 64 tokens.
struct ResidualOf {
  static constexpr unsigned kMostTokens = 64;
  static constexpr unsigned kMostBits = 16;  // raw bits
  std::uint8_t low[kMostTokens] = {};
  std::uint8_t high[kMostTokens] = {};
  std::uint8_t raw_bits[kMostTokens] = {};

  ResidualOf(TokenScheme scheme, unsigned tokens) {
    for (unsigned t = 0; t < tokens; ++t) {
      const auto origin = static_cast<std::uint16_t>(token_origin(t, scheme));
      low[t] = static_cast<std::uint8_t>(origin);
      high[t] = static_cast<std::uint8_t>(origin >> 8);
      raw_bits[t] = static_cast<std::uint8_t>(raw_bits_of(t, scheme));
    }
  }

  // Takes the raw bits of a step out of the states and returns the residuals.
  TEXTNLP_FAST_INLINE Words take(const Words& token, Lanes& lanes, SegmentStream& stream) const {
    const Bytes index = narrow(token);
    Words residual = zip(find(low, index), find(high, index));
    const Bytes bytes = find(raw_bits, index);
    if (vmaxvq_u8(vmaxq_u8(bytes.part[0], bytes.part[1])) == 0) return residual;
    const uint8x16_t none = vdupq_n_u8(0);
    const Words bits = zip(bytes, {{none, none}});
    for (unsigned r = 0; r < kRegisters; ++r) {
      // Shifts by 16 and more, to either side, leave zero.
      const int16x8_t up = vreinterpretq_s16_u16(bits.part[r]);
      const int16x8_t down = vnegq_s16(up);
      const uint16x8_t state_low = lanes.low.part[r];
      const uint16x8_t state_high = lanes.high.part[r];
      const uint16x8_t raw = vbicq_u16(state_low, vshlq_u16(set16(0xffff), up));
      const uint16x8_t carried = vshlq_u16(state_high, vaddq_s16(down, vdupq_n_s16(16)));
      lanes.low.part[r] = vorrq_u16(vshlq_u16(state_low, down), carried);
      lanes.high.part[r] = vshlq_u16(state_high, down);
      const uint16x8_t negative = vcltzq_s16(vreinterpretq_s16_u16(residual.part[r]));
      residual.part[r] = vaddq_u16(residual.part[r], vsubq_u16(veorq_u16(raw, negative), negative));
    }
    refill(lanes, stream);
    return residual;
  }

 private:
  static TEXTNLP_FAST_INLINE Bytes find(const std::uint8_t* table, const Bytes& index) {
    const uint8x16x4_t four = {{vld1q_u8(table), vld1q_u8(table + 16), vld1q_u8(table + 32), vld1q_u8(table + 48)}};
    return {{vqtbl4q_u8(four, index.part[0]), vqtbl4q_u8(four, index.part[1])}};
  }
};

template <bool kFloat>
TEXTNLP_FAST_INLINE void emit(std::uint8_t* out, std::size_t element, const Words& base, const Words& residual) {
  Words target;
  for (unsigned r = 0; r < kRegisters; ++r) {
    target.part[r] = turned<kFloat>(vaddq_u16(base.part[r], residual.part[r]), base.part[r]);
  }
  store_elements(out, element, target);
}

// Tables that are expanded slot by slot.
struct DenseReader {
  const std::uint32_t* slots;
  int16x8_t log;
  uint16x8_t slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  DenseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slots(tables.slots),
        log(vdupq_n_s16(static_cast<std::int16_t>(rule.table_log))),
        slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(rule.table_log),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {}

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(Lanes& lanes, SegmentStream& stream, const std::uint8_t* base, std::uint8_t* out,
                                std::size_t at) const {
    const Words from = load_elements(base, at);
    const uint8x16_t none = vdupq_n_u8(0);
    Words index = zip(context_of(from), {{none, none}});
    for (unsigned r = 0; r < kRegisters; ++r) {
      index.part[r] = vorrq_u16(vshlq_u16(index.part[r], log), vandq_u16(lanes.low.part[r], slot_mask));
    }
    const Entries entries = find_entries(slots, index);
    advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    emit<kFloat>(out, at, from, residual.take(entries.symbol, lanes, stream));
  }
};

// Tables too fine for that: nearly all lanes take token 0, and the rest is found by comparing with the starts of the
// tokens.
struct SparseReader {
  ContextNumbers start[ResidualOf::kMostTokens + 1];  // by token; the end of the last
  uint16x8_t slot_mask;
  Shifts shifts;
  ContextOf context_of;
  ResidualOf residual;

  SparseReader(const DeltaRule& rule, const DeltaDecodeTables& tables)
      : slot_mask(set16((1u << rule.table_log) - 1)),
        shifts(rule.table_log),
        context_of(rule),
        residual(rule.scheme, tables.tokens) {
    for (unsigned t = 0; t <= tables.tokens; ++t) {
      for (unsigned c = 0; c < kMaxContexts; ++c) {
        start[t].set(c, c < rule.contexts ? tables.cumulative[c][t] : 0u);
      }
    }
  }

  template <bool kFloat>
  TEXTNLP_FAST_INLINE void step(Lanes& lanes, SegmentStream& stream, const std::uint8_t* base, std::uint8_t* out,
                                std::size_t at) const {
    const Words from = load_elements(base, at);
    const Bytes context = context_of(from);
    const Words zero = start[1].find(context);
    Words slot;
    Words changed;
    for (unsigned r = 0; r < kRegisters; ++r) {
      slot.part[r] = vandq_u16(lanes.low.part[r], slot_mask);
      changed.part[r] = vcgeq_u16(slot.part[r], zero.part[r]);
    }
    if (__builtin_expect(!any(changed), 1)) {
      advance(lanes, zero, slot, shifts);
      if (any_below_floor(lanes)) refill(lanes, stream);
      store_elements(out, at, from);
      return;
    }
    const Words token = changed_tokens(context, slot, changed, zero, lanes);
    refill(lanes, stream);
    emit<kFloat>(out, at, from, residual.take(token, lanes, stream));
  }

 private:
  TEXTNLP_FAST_INLINE Words changed_tokens(const Bytes& context, const Words& slot, const Words& changed,
                                           const Words& zero, Lanes& lanes) const {
    Words token;
    Words begin;
    Words end = zero;
    for (unsigned r = 0; r < kRegisters; ++r) token.part[r] = begin.part[r] = set16(0);
    Words reached = changed;
    Words next = zero;
    // The likely tokens come first. A slot lies below the end of the last token.
    for (unsigned t = 2; any(reached); ++t) {
      const Words after = start[t].find(context);
      for (unsigned r = 0; r < kRegisters; ++r) {
        token.part[r] = vsubq_u16(token.part[r], reached.part[r]);
        begin.part[r] = vbslq_u16(reached.part[r], next.part[r], begin.part[r]);
        end.part[r] = vbslq_u16(reached.part[r], after.part[r], end.part[r]);
        reached.part[r] = vcgeq_u16(slot.part[r], after.part[r]);
      }
      next = after;
    }
    Words freq;
    Words offset;
    for (unsigned r = 0; r < kRegisters; ++r) {
      freq.part[r] = vsubq_u16(end.part[r], begin.part[r]);
      offset.part[r] = vsubq_u16(slot.part[r], begin.part[r]);
    }
    advance(lanes, freq, offset, shifts);
    return token;
  }
};

template <bool kFloat, class Reader>
bool decode_delta(SegmentInput* segments, unsigned count, const DeltaRule& rule, const DeltaDecodeTables& tables,
                  const std::uint8_t* base, std::uint8_t* out) {
  const Reader reader(rule, tables);
  return decode_segments(
      segments, count,
      [&](std::size_t at, Lanes& lanes, SegmentStream& stream) {
        reader.template step<kFloat>(lanes, stream, base, out, at);
      },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        scalar::delta_get<std::uint16_t>(base + 2 * segment.begin, out + 2 * segment.begin, first, segment.count, rule,
                                         tables, segment.states, words);
      });
}

bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out) {
  // More tokens than a look-up holds, or a bucket of more than sixteen raw bits: nothing that our encoder writes.
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

}  // namespace neon
}  // namespace
}  // namespace textnlp_fast

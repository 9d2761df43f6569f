// Encodes delta frames, by a block: the counts by all threads, the tables by one warp, each segment by one.
#pragma once
#include "cuda/encode_team.h"

namespace textnlp_fast::device {

template <class U>
TEXTNLP_FAST_DEVICE unsigned delta_context(U base, const DeltaRule& rule) {
  const unsigned field = context_field(base, rule.element);
  const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
  return context < rule.contexts ? context : rule.contexts - 1;
}

// Bits that an element takes at most, and one for what rANS loses: the share of the table's last slot and raw bits.
template <class U>
constexpr unsigned most_bits() {
  return kDeltaTableLog + (sizeof(U) == 1 ? 5 : sizeof(U) == 2 ? 13 : sizeof(U) == 4 ? 30 : 63) + 1;
}

// Fills counts[context][token] of shared.delta.model, whose rule stands.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void count_tokens(const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                                           DeltaModel& model) {
  for (unsigned i = simt::thread(); i < kMaxContexts * kMaxTokens; i += kEncodeThreads) {
    model.counts[i / kMaxTokens][i % kMaxTokens] = 0;
  }
  simt::sync_block();
  const DeltaRule rule = model.rule;
  for (std::size_t i = simt::thread(); i < count; i += kEncodeThreads) {
    const U from = load<U>(base, i);
    const U residual = residual_of(load<U>(target, i), from, rule.element.is_float);
    simt::atomic_add(&model.counts[delta_context(from, rule)][token_of(residual, rule.scheme).token], 1u);
  }
  simt::sync_block();
}

// Puts the tables' symbols where the counts were. By all warps.
TEXTNLP_FAST_DEVICE_CALL void make_delta_symbols(DeltaModel& model) {
  for (unsigned c = simt::warp(); c < model.rule.contexts; c += kEncodeWarps) {
    symbols_of_shares(model.tables[c].freq, model.tables[c].symbols, kMaxTokens, model.counts[c]);
  }
  simt::sync_block();
}

// Codes a segment from its last step to its first.
template <class U>
TEXTNLP_FAST_DEVICE_CALL std::uint32_t put_delta_segment(const std::uint8_t* target, const std::uint8_t* base,
                                                         std::size_t count, const DeltaRule& rule,
                                                         const TokenCounts* symbols, WarpWriter& words) {
  std::uint32_t state = kStateFloor;
  std::size_t step = (count - 1) / kLanes * kLanes;
  // The elements of the next step are on their way while one is coded.
  bool active = step + simt::lane() < count;
  U from = active ? load<U>(base, step + simt::lane()) : U{0};
  U to = active ? load<U>(target, step + simt::lane()) : U{0};
  for (;; step -= kLanes) {
    const bool more = step != 0;
    const std::size_t next = more ? step - kLanes + simt::lane() : 0;
    const U next_from = load<U>(base, next);
    const U next_to = load<U>(target, next);
    Token token{0, 0, 0};
    EncodeSymbol symbol{1, 0};
    if (active) {
      token = token_of(residual_of(to, from, rule.element.is_float), rule.scheme);
      symbol = unpacked(symbols[delta_context(from, rule)][token.token]);
    }
    for (unsigned chunk = (sizeof(U) * 8 + 15) / 16; chunk-- > 0;) {
      const bool has = token.raw_bits > chunk * 16;
      if (simt::ballot(has) == 0) continue;
      const unsigned left = has ? token.raw_bits - chunk * 16 : 0;
      const unsigned bits = left < 16 ? left : 16;
      words.put_raw(has, state, static_cast<std::uint32_t>(token.raw >> (chunk * 16)) & ((1u << bits) - 1), bits);
    }
    words.put_symbol(active, state, symbol, rule.table_log);
    if (!more) return state;
    active = true;
    from = next_from;
    to = next_to;
  }
}

// All segments; their words and states are kept as streams.
template <class U>
TEXTNLP_FAST_DEVICE void put_delta_segments(const Encoding& encoding, const std::uint8_t* target,
                                            const std::uint8_t* base, std::size_t count, const SegmentsOf& segments,
                                            DeltaModel& model) {
  make_delta_symbols(model);
  auto* const room = reinterpret_cast<std::uint16_t*>(encoding.room.words);
  for (unsigned s = simt::warp(); s < segments.count; s += kEncodeWarps) {
    std::uint16_t* const end = room + (s + 1) * segments.room;
    WarpWriter words{end};
    const std::size_t offset = s * segments.length * sizeof(U);
    const std::uint32_t state =
        put_delta_segment<U>(target + offset, base + offset, segments.size(count, s), model.rule, model.counts, words);
    keep_stream(encoding.shared, s, state, words.at, end, encoding.room.words);
  }
  simt::sync_block();
}

// Chooses and writes what stands before the segments, by one warp. Sets shared.result to where they begin, or 0.
TEXTNLP_FAST_DEVICE_CALL void plan_delta(const Encoding& encoding, std::size_t count, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  DeltaModel& model = shared.delta.model;
  const WarpTeam team = encoding.team();
  const unsigned tokens = choice::most_tokens(team, model);
  const double raw = choice::raw_bits(team, model, tokens);
  choice::choose_tables(team, model, shared.delta.scratch);
  const double body = (model.bits + raw) / 8;
  const unsigned segments = choose_segments(count, body);
  const bool refused =
      body + static_cast<double>(segments * (sizeof(std::uint32_t) * kLanes + 4)) + 8 >= static_cast<double>(limit);
  Sink out(encoding.body(), encoding.size);
  if (!refused) {
    if (simt::lane() == 0) choice::put_rule(out, model.rule);
    choice::put_tables(team, out, model);
  }
  if (simt::lane() != 0) return;
  shared.segments = segments;
  shared.result = refused || out.full() ? 0 : static_cast<std::uint32_t>(out.size());
}

// Leaves the bytes of the body in shared.result, 0 if it is refused.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void encode_delta(const Encoding& encoding, Dtype dtype, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  DeltaModel& model = shared.delta.model;
  const std::size_t count = encoding.size / sizeof(U);
  const ElementRule element = element_rule(dtype);
  if (simt::thread() == 0) shared.flag = 0;
  simt::sync_block();
  unsigned most = 0;
  for (std::size_t i = simt::thread(); i < count; i += kEncodeThreads) {
    const unsigned field = context_field(load<U>(encoding.base, i), element);
    most = field > most ? field : most;
  }
  if (most != 0) simt::atomic_max(&shared.flag, most);
  simt::sync_block();
  if (simt::thread() == 0) {
    DeltaRule& rule = model.rule;
    rule.element = element;
    rule.context_base = shared.flag >= kMaxContexts ? shared.flag - (kMaxContexts - 1) : 0;
    rule.contexts = shared.flag - rule.context_base + 1;
    rule.table_log = kDeltaTableLog;
    rule.scheme = dense_scheme(sizeof(U));
    model.may_be_even = false;
  }
  simt::sync_block();
  count_tokens<U>(encoding.target, encoding.base, count, model);
  if (simt::warp() == 0) plan_delta(encoding, count, limit);
  simt::sync_block();
  if (shared.result == 0) return;
  const SegmentsOf segments(count, shared.segments, most_bits<U>());
  put_delta_segments<U>(encoding, encoding.target, encoding.base, count, segments, model);
  if (simt::thread() == 0) {
    const std::size_t end = lay_segments(shared, 0, segments.count, encoding.body(), encoding.size, shared.result);
    shared.result = accepted(encoding, end, limit);
  }
  simt::sync_block();
  if (shared.result != 0) copy_segments(encoding, 0, segments.count);
  simt::sync_block();
}

}  // namespace textnlp_fast::device

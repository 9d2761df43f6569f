// Encodes sparse and learned frames, by a block.
#pragma once
#include "cuda/encode_delta.h"
#include "cuda/encode_learned.h"
#include "cuda/encode_steps.h"

namespace textnlp_fast::device {

// How far the changes go towards steps: shared.steps_bits.
template <class U>
TEXTNLP_FAST_DEVICE void try_steps(const Encoding& encoding, Dtype dtype, std::size_t total) {
  EncodeShared& shared = encoding.shared;
  if (simt::thread() == 0) {
    shared.steps_bits = 0;
    shared.step = 0;
  }
  simt::sync_block();
  if (!has_steps(dtype)) return;
  with_format<U>(dtype, [&](auto format) {
    using Format = decltype(format);
    find_step<Format>(encoding, total);
    if (shared.step != 0) measure_steps<Format>(encoding, total);
  });
}

// Chooses tables for the row of elements; about what these and the elements under them take in shared.values_bits, and
// what learned ones take, 0 if they cannot be, in shared.learned_bits.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void choose_values(const Encoding& encoding, std::size_t total) {
  EncodeShared& shared = encoding.shared;
  DeltaModel& model = shared.delta.model;
  if (simt::thread() == 0) {
    model.rule = shared.rule;
    model.rule.scheme = dense_scheme(sizeof(U));
    model.rule.table_log = kDeltaTableLog;
    model.may_be_even = true;
  }
  simt::sync_block();
  count_tokens<U>(encoding.room.to, encoding.room.from, total, model);
  if (simt::warp() == 0) {
    const WarpTeam team = encoding.team();
    const double raw = choice::raw_bits(team, model, choice::most_tokens(team, model));
    const double learned = choice::learned_bits(team, model, shared.split.listed, total, raw);
    if (simt::lane() == 0) shared.learned_bits = learned;
    team.sync();
    choice::choose_tables(team, model, shared.delta.scratch);
    if (simt::lane() == 0) shared.values_bits = model.bits + raw;
  }
  simt::sync_block();
}

// The body with steps.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void put_steps(const Encoding& encoding, Dtype dtype, std::size_t total, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  with_format<U>(dtype, [&](auto format) {
    using Format = decltype(format);
    if (simt::thread() == 0) tell_exceptions<Format>(encoding, total);
    simt::sync_block();
    tell_directions<Format>(encoding, total);
  });
  if (simt::warp() == 0) put_pair(encoding);
  simt::sync_block();
  const std::size_t directions = (shared.movable + 7) / 8;
  if (simt::thread() == 0) {
    Sink out(encoding.body(), encoding.size);
    out.byte(static_cast<std::uint8_t>(Telling::as_steps));
    choice::put_split(out, shared.rule, shared.split);
    out.bytes(&shared.step, sizeof shared.step);
    const bool fits = lay_pair(encoding, out);
    const std::size_t end = shared.pair_at + sizeof(std::uint32_t) * std::size_t{shared.pair_words} + directions;
    shared.result = fits ? accepted(encoding, end, limit) : 0;
  }
  simt::sync_block();
  if (shared.result == 0) return;
  copy_pair(encoding);
  copy_shifted(reinterpret_cast<const std::uint8_t*>(encoding.room.directions),
               encoding.body() + (shared.result - directions), directions, simt::thread(), kEncodeThreads);
  simt::sync_block();
}

// The values' symbols, behind those of the places, by one warp.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void tell_values(const Encoding& encoding, std::size_t total) {
  EncodeShared& shared = encoding.shared;
  const TokenCounts* const tables = shared.delta.model.counts;
  const DeltaRule rule = shared.delta.model.rule;
  std::uint32_t symbols = shared.symbols;
  for (std::size_t first = 0; first < total; first += simt::kWarp) {
    const std::size_t i = first + simt::lane();
    Token token{0, 0, 0};
    U from = 0;
    if (i < total) {
      from = load<U>(encoding.room.from, i);
      token = token_of(residual_of(load<U>(encoding.room.to, i), from, rule.element.is_float), rule.scheme);
    }
    std::uint32_t all = 0;
    std::uint32_t at = symbols + simt::sum_below(i < total ? 1 + (token.raw_bits + 15) / 16 : 0, &all);
    symbols += all;
    if (i >= total) continue;
    encoding.room.symbols[at++] = table_symbol(unpacked(tables[delta_context(from, rule)][token.token]));
    for (unsigned done = 0; done < token.raw_bits; done += 16) {
      const unsigned bits = token.raw_bits - done < 16 ? token.raw_bits - done : 16;
      encoding.room.symbols[at++] =
          raw_symbol(static_cast<std::uint32_t>(token.raw >> done) & ((1u << bits) - 1), bits);
    }
  }
  simt::sync_warp();
  if (simt::lane() == 0) shared.symbols = symbols;
  simt::sync_warp();
}

// The body with values, one by one or in lanes.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void put_values(const Encoding& encoding, std::size_t total, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  DeltaModel& model = shared.delta.model;
  const Telling telling = total <= kMostPaired ? Telling::paired : Telling::in_lanes;
  if (telling == Telling::paired) {
    make_delta_symbols(model);
    if (simt::warp() == 0) tell_values<U>(encoding, total);
    simt::sync_block();
  }
  if (simt::warp() == 0) {
    put_pair(encoding);
    simt::sync_warp();
    Sink out(encoding.body(), encoding.size);
    if (simt::lane() == 0) {
      out.byte(static_cast<std::uint8_t>(telling));
      choice::put_split(out, shared.rule, shared.split);
      out.byte(static_cast<std::uint8_t>(model.rule.table_log));
      choice::put_scheme(out, model.rule.scheme);
    }
    choice::put_tables(encoding.team(), out, model);
    if (simt::lane() == 0) {
      const bool fits = lay_pair(encoding, out);
      const std::size_t end = shared.pair_at + sizeof(std::uint32_t) * std::size_t{shared.pair_words};
      shared.result = fits ? accepted(encoding, end, limit) : 0;
    }
  }
  simt::sync_block();
  if (shared.result == 0) return;
  copy_pair(encoding);
  simt::sync_block();
  if (telling == Telling::paired) return;
  const SegmentsOf segments(total, choose_segments(total, shared.values_bits / 8), most_bits<U>());
  put_delta_segments<U>(encoding, encoding.room.to, encoding.room.from, total, segments, model);
  if (simt::thread() == 0) {
    const std::size_t end = lay_segments(shared, 0, segments.count, encoding.body(), encoding.size, shared.result);
    shared.result = accepted(encoding, end, limit);
  }
  simt::sync_block();
  if (shared.result != 0) copy_segments(encoding, 0, segments.count);
  simt::sync_block();
}

// Leaves the bytes of the body in shared.result, 0 if it is refused.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void encode_sparse(const Encoding& encoding, Dtype dtype, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  const std::size_t count = encoding.size / sizeof(U);
  const ElementRule element = element_rule(dtype);
  if (simt::thread() == 0) {
    shared.result = 0;
    shared.learned = false;
  }
  find_most_changed<U>(encoding, count);
  if (shared.most == 0) return;
  survey<U>(encoding, count, element);
  if (shared.changed > shared.most) return;
  if (simt::thread() == 0) {
    shared.rule.element = element;
    choice::choose_split(shared.survey, shared.rule, shared.split);
    shared.kinds = sparse_rule(shared.rule, shared.split);
    shared.hazards = choice::has_hazards(shared.kinds);
  }
  simt::sync_block();
  tell_places<U>(encoding, count);
  const std::size_t total = std::size_t{shared.listed} + shared.events;
  try_steps<U>(encoding, dtype, total);
  const double steps = shared.steps_bits;
  if (steps != 0 && steps < kStepBits * static_cast<double>(shared.changed)) {
    put_steps<U>(encoding, dtype, total, limit);
    return;
  }
  choose_values<U>(encoding, total);
  const double values = shared.values_bits;
  const double told = shared.learned_bits;
  const double least = told != 0 && told < values ? told : values;
  const bool as_steps = steps != 0 && steps < least;
  if ((as_steps ? steps : least) / 8 + kPairStateBytes >= static_cast<double>(limit)) return;
  const bool learned = !as_steps && choice::better_learned(told, values, total);
  if (simt::thread() == 0) shared.learned = learned;
  if (as_steps) {
    put_steps<U>(encoding, dtype, total, limit);
  } else if (learned) {
    put_learned<U>(encoding, total, limit);
  } else {
    put_values<U>(encoding, total, limit);
  }
}

}  // namespace textnlp_fast::device

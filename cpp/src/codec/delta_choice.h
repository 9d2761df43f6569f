// The tables of delta and sparse frames, chosen and written: docs/format.md, "Delta". Shared with the CUDA twin.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/codec_kernels.h"
#include "codec/table_choice.h"
#include "codec/table_reading.h"

namespace textnlp_fast {

// Shares of the tokens of a context, and how they are told.
struct TokenTable {
  std::uint16_t freq[kMaxTokens];
  unsigned symbols;
  unsigned code;      // ContextCode
  unsigned dominant;  // the bucket that an even table leaves out
  double bits;        // of the tokens under it, and of itself
};

// The tables of a frame while they are made: counts by context, then shares, neighbours with like shares sharing one.
struct DeltaModel {
  DeltaRule rule;
  bool may_be_even;  // whether tables that give both signs one share are tried: they are small
  TokenCounts counts[kMaxContexts];
  TokenTable tables[kMaxContexts];
  double bits;  // of everything but the fixed parts
};

// What choosing works in.
struct TableScratch {
  TokenCounts joined;
  TokenTable together;
  TokenTable even;
  std::uint32_t buckets[kMaxTokens / 2 + 1];
  std::uint16_t shares[kMaxTokens / 2 + 1];
};

constexpr unsigned kDeltaTableLog = 10;

// For one and two bytes no more than 64 tokens: vector kernels keep them in registers.
TEXTNLP_FAST_HD inline TokenScheme dense_scheme(std::size_t element_bytes) noexcept {
  switch (element_bytes) {
    case 1: return {16, 1};
    case 2: return {3, 1};
    case 4: return {0, 1};
    default: return {0, 0};
  }
}

namespace choice {

TEXTNLP_FAST_HD inline std::uint32_t from_to(unsigned before, unsigned value) {
  return zigzag(static_cast<std::int32_t>(value - before));
}

// One more than the last symbol that occurs, at least 1.
template <class Team>
TEXTNLP_FAST_HD_CALL unsigned used_symbols(const Team& team, const std::uint32_t* counts) {
  double high = 0;
  int last = -1;
  own_symbols(team, kMaxTokens, [&](unsigned s) {
    if (counts[s] == 0) return;
    high = s;
    last = static_cast<int>(s);
  });
  team.best(high, last);
  return last < 0 ? 1 : static_cast<unsigned>(last) + 1;
}

// One more than the last token that occurs in any context.
template <class Team>
TEXTNLP_FAST_HD inline unsigned most_tokens(const Team& team, const DeltaModel& model) {
  unsigned most = 1;
  for (unsigned c = 0; c < model.rule.contexts; ++c) {
    const unsigned used = used_symbols(team, model.counts[c]);
    most = used > most ? used : most;
  }
  return most;
}

// Bits that follow the tokens.
template <class Team>
TEXTNLP_FAST_HD inline double raw_bits(const Team& team, const DeltaModel& model, unsigned tokens) {
  std::int64_t bits = 0;
  own_symbols(team, tokens, [&](unsigned t) {
    if (t <= 2 * model.rule.scheme.direct) return;
    std::int64_t count = 0;
    for (unsigned c = 0; c < model.rule.contexts; ++c) count += model.counts[c][t];
    bits += count * raw_bits_of(t, model.rule.scheme);
  });
  return static_cast<double>(team.sum(bits));
}

template <class Team>
TEXTNLP_FAST_HD inline void copy_table(const Team& team, const TokenTable& from, TokenTable& to) {
  own_symbols(team, kMaxTokens, [&](unsigned t) { to.freq[t] = from.freq[t]; });
  if (team.lane() == 0) {
    to.symbols = from.symbols;
    to.code = from.code;
    to.dominant = from.dominant;
    to.bits = from.bits;
  }
  team.sync();
}

template <class Team>
TEXTNLP_FAST_HD inline void tell_table(const Team& team, TokenTable& table, unsigned symbols, unsigned code,
                                       double bits) {
  if (team.lane() == 0) {
    table.symbols = symbols;
    table.code = code;
    table.bits = bits;
  }
  team.sync();
}

template <class Team>
TEXTNLP_FAST_HD_CALL void own_table(const Team& team, const TokenCounts& counts, unsigned table_log,
                                    TokenTable& table) {
  own_symbols(team, kMaxTokens, [&](unsigned t) { table.freq[t] = 0; });
  team.sync();
  const unsigned symbols = used_symbols(team, counts);
  if (symbols == 1) {
    if (team.lane() == 0) table.freq[0] = static_cast<std::uint16_t>(1u << table_log);
    tell_table(team, table, 1, kZeroOnly, 0);
    return;
  }
  normalise(team, counts, symbols, table_log, table.freq);
  const double bits =
      coded_bits(team, counts, table.freq, symbols, table_log) + estimated_table_bits(team, table.freq, symbols);
  tell_table(team, table, symbols, kOwnTable, bits);
}

// Both signs of a size share alike, and shares are rounded, but that of the dominant bucket, which has what is left.
// False if nothing is left.
template <class Team>
TEXTNLP_FAST_HD_CALL bool even_table(const Team& team, const TokenCounts& counts, unsigned table_log,
                                     TableScratch& scratch) {
  TokenTable& table = scratch.even;
  std::uint16_t* const shares = scratch.shares;
  const unsigned last = bucket_of(used_symbols(team, counts) - 1);
  own_symbols(team, last + 1, [&](unsigned b) {
    scratch.buckets[b] = b == 0 ? counts[0] : counts[2 * b - 1] + (2 * b < kMaxTokens ? counts[2 * b] : 0);
  });
  team.sync();
  normalise(team, scratch.buckets, last + 1, table_log - 1, shares);
  double high = 0;
  int where = -1;
  own_symbols(team, last + 1, [&](unsigned b) {
    if (where >= 0 && shares[b] <= high) return;
    high = shares[b];
    where = static_cast<int>(b);
  });
  team.best(high, where);
  const auto dominant = static_cast<unsigned>(where);
  std::int64_t given = 0;
  std::int64_t halves = 0;  // of bits
  own_symbols(team, last + 1, [&](unsigned b) {
    if (b == dominant) return;
    const unsigned level = level_of(shares[b]);
    const unsigned above = share_of(level + 1);
    shares[b] = static_cast<std::uint16_t>(above - shares[b] < shares[b] - share_of(level) ? above : share_of(level));
    halves += shares[b] == 0 ? 3 : 10;
    given += shares[b];
  });
  const std::int64_t left = (std::int64_t{1} << (table_log - 1)) - team.sum(given);
  const double bits = 6 + static_cast<double>(team.sum(halves)) / 2;
  if (left <= 0) return false;
  if (team.lane() == 0) {
    shares[dominant] = static_cast<std::uint16_t>(left);
    table.dominant = dominant;
  }
  team.sync();
  own_symbols(team, kMaxTokens, [&](unsigned t) {
    const unsigned b = bucket_of(t);
    table.freq[t] = static_cast<std::uint16_t>(b > last ? 0 : b == 0 ? 2 * shares[0] : shares[b]);
  });
  team.sync();
  const unsigned symbols = 2 * last + 1;
  tell_table(team, table, symbols, kEvenTable, bits + coded_bits(team, counts, table.freq, symbols, table_log));
  return true;
}

template <class Team>
TEXTNLP_FAST_HD_CALL void best_table(const Team& team, const TokenCounts& counts, unsigned table_log, bool may_be_even,
                                     TokenTable& table, TableScratch& scratch) {
  own_table(team, counts, table_log, table);
  if (!may_be_even || table.code == kZeroOnly || table.symbols >= kMaxTokens - 1) return;
  const bool shorter = even_table(team, counts, table_log, scratch) && scratch.even.bits < table.bits;
  // Nobody writes to the table before all have weighed it.
  team.sync();
  if (shorter) copy_table(team, scratch.even, table);
}

// From counts to shares, contexts that lie side by side sharing a table where that is cheaper. Left to right: a context
// joins the group before it when one table for both costs less than two.
template <class Team>
TEXTNLP_FAST_HD_CALL void choose_tables(const Team& team, DeltaModel& model, TableScratch& scratch) {
  const unsigned contexts = model.rule.contexts;
  const unsigned log = model.rule.table_log;
  const bool even = model.may_be_even;
  unsigned group = 0;  // first context of the open group; its counts and its table are the group's
  best_table(team, model.counts[0], log, even, model.tables[0], scratch);
  double bits = 2.0 * contexts;
  auto close = [&](unsigned until) {
    bits += model.tables[group].bits;
    for (unsigned c = group + 1; c < until; ++c) {
      copy_table(team, model.tables[group], model.tables[c]);
      if (team.lane() == 0) model.tables[c].code = kAsBefore;
    }
    team.sync();
  };
  for (unsigned c = 1; c < contexts; ++c) {
    best_table(team, model.counts[c], log, even, model.tables[c], scratch);
    // One where nothing changes costs nothing by itself.
    if ((model.tables[c].code == kZeroOnly) == (model.tables[group].code == kZeroOnly)) {
      own_symbols(team, kMaxTokens,
                  [&](unsigned t) { scratch.joined[t] = model.counts[group][t] + model.counts[c][t]; });
      team.sync();
      best_table(team, scratch.joined, log, even, scratch.together, scratch);
      if (scratch.together.bits <= model.tables[group].bits + model.tables[c].bits) {
        own_symbols(team, kMaxTokens, [&](unsigned t) { model.counts[group][t] = scratch.joined[t]; });
        team.sync();
        copy_table(team, scratch.together, model.tables[group]);
        continue;
      }
    }
    close(c);
    group = c;
  }
  close(contexts);
  if (team.lane() == 0) model.bits = bits;
  team.sync();
}

TEXTNLP_FAST_HD inline void put_scheme(Sink& out, TokenScheme scheme) {
  out.byte(static_cast<std::uint8_t>(scheme.direct << 2 | scheme.mantissa));
}

// What stands before the tables: table log, token scheme, first field and number of contexts.
TEXTNLP_FAST_HD inline void put_rule(Sink& out, const DeltaRule& rule) {
  out.byte(static_cast<std::uint8_t>(rule.table_log));
  put_scheme(out, rule.scheme);
  out.varint(rule.context_base);
  out.byte(static_cast<std::uint8_t>(rule.contexts));
}

// Takes bits as BitWriter does, and only counts them.
struct BitCounter {
  std::uint64_t bits = 0;
  TEXTNLP_FAST_HD void put(std::uint32_t /*value*/, unsigned count) { bits += count; }
  TEXTNLP_FAST_HD void put_golomb(std::uint32_t value, unsigned order) { bits += BitWriter::golomb_bits(value, order); }
};

template <class Bits>
TEXTNLP_FAST_HD_CALL void put_even(Bits& bits, const TokenTable& table, unsigned order, EvenHistory& history) {
  const unsigned last = bucket_of(table.symbols - 1);
  if (!history.any) bits.put(order, kLevelOrderBits);
  bits.put_golomb(from_to(history.last, last), kLastOrder);
  bits.put_golomb(table.dominant, kDominantOrder);
  history.any = true;
  history.last = last;
  for (unsigned b = 0; b <= last; ++b) {
    const unsigned level = level_of(b == 0 ? table.freq[0] / 2u : table.freq[2 * b - 1]);
    if (b != table.dominant) bits.put_golomb(from_to(history.levels[b], level), order);
    history.levels[b] = level;
  }
}

// The order that tells the levels in the fewest bytes.
template <class Team>
TEXTNLP_FAST_HD_CALL unsigned level_order(const Team& team, const DeltaModel& model) {
  if (!model.may_be_even) return 0;
  double least = 0;
  int order = -1;
  own_symbols(team, 1u << kLevelOrderBits, [&](unsigned tried) {
    BitCounter bits;
    EvenHistory history;
    for (unsigned c = 0; c < model.rule.contexts; ++c) {
      if (model.tables[c].code == kEvenTable) put_even(bits, model.tables[c], tried, history);
    }
    const auto whole = (bits.bits + 7) / 8;
    const auto bytes = static_cast<double>(whole);
    if (order >= 0 && -bytes <= least) return;
    least = -bytes;
    order = static_cast<int>(tried);
  });
  team.best(least, order);
  return static_cast<unsigned>(order);
}

// The context codes with their tables, padded to a byte. The first lane writes.
template <class Team>
TEXTNLP_FAST_HD_CALL void put_tables(const Team& team, Sink& out, const DeltaModel& model) {
  const unsigned order = level_order(team, model);
  BitWriter bits(out);
  EvenHistory history;
  for (unsigned c = 0; c < model.rule.contexts; ++c) {
    const TokenTable& table = model.tables[c];
    Plan plan;
    if (table.code == kOwnTable && table.symbols > 1) plan = plan_table(team, table.freq, table.symbols);
    if (team.lane() != 0) continue;
    bits.put(table.code, 2);
    if (table.code == kOwnTable) put_table(bits, table.freq, table.symbols, plan);
    if (table.code == kEvenTable) put_even(bits, table, order, history);
  }
  if (team.lane() == 0) bits.finish();
}

}  // namespace choice
}  // namespace textnlp_fast

#include "codec/delta_model.h"

#include <algorithm>
#include <cstring>

#include "codec/table_reading.h"
#include "codec/tables.h"

namespace textnlp_fast {
namespace {

unsigned used_symbols(const std::uint32_t* counts) {
  unsigned symbols = kMaxTokens;
  while (symbols > 1 && counts[symbols - 1] == 0) --symbols;
  return symbols;
}

constexpr unsigned bucket_of(unsigned token) { return (token + 1) >> 1; }

std::uint32_t zigzag(unsigned value, unsigned before) {
  const auto difference = static_cast<std::int32_t>(value - before);
  return (static_cast<std::uint32_t>(difference) << 1) ^ static_cast<std::uint32_t>(difference >> 31);
}

void own_table(const TokenCounts& counts, unsigned table_log, TokenTable& table) {
  std::memset(table.freq, 0, sizeof table.freq);
  table.symbols = used_symbols(counts);
  if (table.symbols == 1) {
    table.freq[0] = static_cast<std::uint16_t>(1u << table_log);
    table.code = kZeroOnly;
    table.bits = 0;
    return;
  }
  normalise(counts, table.symbols, table_log, table.freq);
  table.code = kOwnTable;
  table.bits =
      coded_bits(counts, table.freq, table.symbols, table_log) + estimated_table_bits(table.freq, table.symbols);
}

// Both signs of a size share alike, and shares are rounded, but that of the dominant bucket, which has what is left.
// False if nothing is left.
bool even_table(const TokenCounts& counts, unsigned table_log, TokenTable& table) {
  const unsigned last = bucket_of(used_symbols(counts) - 1);
  std::uint32_t buckets[kMaxTokens / 2 + 1];
  std::uint16_t shares[kMaxTokens / 2 + 1];
  buckets[0] = counts[0];
  for (unsigned b = 1; b <= last; ++b) buckets[b] = counts[2 * b - 1] + (2 * b < kMaxTokens ? counts[2 * b] : 0);
  normalise(buckets, last + 1, table_log - 1, shares);
  table.dominant = 0;
  for (unsigned b = 1; b <= last; ++b) {
    if (shares[b] > shares[table.dominant]) table.dominant = b;
  }
  unsigned left = 1u << (table_log - 1);
  double bits = 6;
  for (unsigned b = 0; b <= last; ++b) {
    if (b == table.dominant) continue;
    const unsigned level = level_of(shares[b]);
    const unsigned above = share_of(level + 1);
    shares[b] = static_cast<std::uint16_t>(above - shares[b] < shares[b] - share_of(level) ? above : share_of(level));
    bits += shares[b] == 0 ? 1.5 : 5;
    if (shares[b] >= left) return false;
    left -= shares[b];
  }
  shares[table.dominant] = static_cast<std::uint16_t>(left);
  std::memset(table.freq, 0, sizeof table.freq);
  table.freq[0] = static_cast<std::uint16_t>(2 * shares[0]);
  for (unsigned b = 1; b <= last; ++b) table.freq[2 * b - 1] = table.freq[2 * b] = shares[b];
  table.symbols = 2 * last + 1;
  table.code = kEvenTable;
  table.bits = bits + coded_bits(counts, table.freq, table.symbols, table_log);
  return true;
}

void best_table(const TokenCounts& counts, unsigned table_log, bool may_be_even, TokenTable& table) {
  own_table(counts, table_log, table);
  if (!may_be_even || table.code == kZeroOnly || table.symbols >= kMaxTokens - 1) return;
  TokenTable even;
  if (even_table(counts, table_log, even) && even.bits < table.bits) table = even;
}

void write_even(BitWriter& bits, const TokenTable& table, unsigned order, EvenHistory& history) {
  const unsigned last = bucket_of(table.symbols - 1);
  if (!history.any) bits.put(order, kLevelOrderBits);
  bits.put_golomb(zigzag(last, history.last), kLastOrder);
  bits.put_golomb(table.dominant, kDominantOrder);
  history.any = true;
  history.last = last;
  for (unsigned b = 0; b <= last; ++b) {
    const unsigned level = level_of(b == 0 ? table.freq[0] / 2u : table.freq[2 * b - 1]);
    if (b != table.dominant) bits.put_golomb(zigzag(level, history.levels[b]), order);
    history.levels[b] = level;
  }
}

}  // namespace

TokenScheme dense_scheme(std::size_t element_bytes) noexcept {
  switch (element_bytes) {
    case 1: return {16, 1};
    case 2: return {3, 1};
    case 4: return {0, 1};
    default: return {0, 0};
  }
}

unsigned most_tokens(const DeltaModel& model) noexcept {
  unsigned most = 1;
  for (unsigned c = 0; c < model.rule.contexts; ++c) most = std::max(most, used_symbols(model.counts[c]));
  return most;
}

double raw_bits(const DeltaModel& model, unsigned tokens) noexcept {
  std::uint64_t bits = 0;
  for (unsigned t = 2 * model.rule.scheme.direct + 1; t < tokens; ++t) {
    std::uint64_t count = 0;
    for (unsigned c = 0; c < model.rule.contexts; ++c) count += model.counts[c][t];
    bits += count * raw_bits_of(t, model.rule.scheme);
  }
  return static_cast<double>(bits);
}

// Left to right: a context joins the group before it when one table for both costs less than two.
void choose_tables(DeltaModel& model) noexcept {
  const unsigned contexts = model.rule.contexts;
  const unsigned log = model.rule.table_log;
  const bool even = model.may_be_even;
  unsigned group = 0;  // first context of the open group; its counts and its table are the group's
  best_table(model.counts[0], log, even, model.tables[0]);
  model.bits = 2.0 * contexts;
  auto close = [&](unsigned until) {
    model.bits += model.tables[group].bits;
    for (unsigned c = group + 1; c < until; ++c) {
      model.tables[c] = model.tables[group];
      model.tables[c].code = kAsBefore;
    }
  };
  for (unsigned c = 1; c < contexts; ++c) {
    best_table(model.counts[c], log, even, model.tables[c]);
    // One where nothing changes costs nothing by itself.
    if ((model.tables[c].code == kZeroOnly) == (model.tables[group].code == kZeroOnly)) {
      TokenCounts joined;
      for (unsigned t = 0; t < kMaxTokens; ++t) joined[t] = model.counts[group][t] + model.counts[c][t];
      TokenTable together;
      best_table(joined, log, even, together);
      if (together.bits <= model.tables[group].bits + model.tables[c].bits) {
        std::memcpy(model.counts[group], joined, sizeof joined);
        model.tables[group] = together;
        continue;
      }
    }
    close(c);
    group = c;
  }
  close(contexts);
}

void write_rule(Sink& out, const DeltaRule& rule) {
  out.byte(static_cast<std::uint8_t>(rule.table_log));
  out.byte(static_cast<std::uint8_t>(rule.scheme.direct << 2 | rule.scheme.mantissa));
  out.varint(rule.context_base);
  out.byte(static_cast<std::uint8_t>(rule.contexts));
}

void write_tables(Sink& out, const DeltaModel& model) {
  // The order that tells the levels in the fewest bits.
  unsigned order = 0;
  std::size_t least = ~std::size_t{0};
  for (unsigned tried = 0; tried < 1u << kLevelOrderBits && model.may_be_even; ++tried) {
    std::uint8_t scrap[4096];
    Sink sink(scrap, sizeof scrap);
    BitWriter bits(sink);
    EvenHistory history;
    for (unsigned c = 0; c < model.rule.contexts; ++c) {
      if (model.tables[c].code == kEvenTable) write_even(bits, model.tables[c], tried, history);
    }
    bits.finish();
    if (sink.size() < least) {
      least = sink.size();
      order = tried;
    }
  }
  BitWriter bits(out);
  EvenHistory history;
  for (unsigned c = 0; c < model.rule.contexts; ++c) {
    const TokenTable& table = model.tables[c];
    bits.put(table.code, 2);
    if (table.code == kOwnTable) write_table(bits, table.freq, table.symbols);
    if (table.code == kEvenTable) write_even(bits, table, order, history);
  }
  bits.finish();
}

bool read_tables(ByteReader& reader, Dtype dtype, DeltaDecoder& decoder) {
  return read_tables(reader, dtype, decoder.rule, decoder.freq);
}

void build_starts(DeltaDecoder& decoder) {
  decoder.tables.slots = nullptr;
  decoder.tables.tokens = 1;
  for (unsigned c = 0; c < decoder.rule.contexts; ++c) {
    const std::uint16_t* const freq = decoder.freq[c];
    decoder.tables.zero_freq[c] = freq[0];
    std::uint32_t start = 0;
    for (unsigned t = 0; t < kMaxTokens; ++t) {
      decoder.tables.cumulative[c][t] = static_cast<std::uint16_t>(start);
      start += freq[t];
      if (freq[t] != 0) decoder.tables.tokens = std::max(decoder.tables.tokens, t + 1);
    }
    decoder.tables.cumulative[c][kMaxTokens] = static_cast<std::uint16_t>(start);
  }
}

void build_decode_tables(DeltaDecoder& decoder) {
  build_starts(decoder);
  const unsigned log = decoder.rule.table_log;
  if (log > kMaxSlotLog) return;
  const std::size_t needed = static_cast<std::size_t>(decoder.rule.contexts) << log;
  if (decoder.slots.size() < needed) decoder.slots.resize(needed);
  decoder.tables.slots = decoder.slots.data();
  const std::size_t each = std::size_t{1} << log;
  for (unsigned c = 0; c < decoder.rule.contexts; ++c) {
    std::uint32_t* const slots = decoder.slots.data() + c * each;
    // Neighbours often share a table.
    if (c > 0 && std::memcmp(decoder.freq[c], decoder.freq[c - 1], sizeof decoder.freq[c]) == 0) {
      std::memcpy(slots, slots - each, each * sizeof *slots);
    } else {
      build_slots(decoder.freq[c], kMaxTokens, slots);
    }
  }
}

}  // namespace textnlp_fast

// Readers of tables: docs/format.md, "Table" and "Delta".
#pragma once
#include <cstdint>
#include <cstring>

#include "codec/bits.h"
#include "codec/byte_reader.h"
#include "codec/codec_kernels.h"
#include "textnlp_fast/dtype.h"

namespace textnlp_fast {

constexpr unsigned kSymbolBits = 8;  // the highest symbol
constexpr unsigned kOrderBits = 4;   // order of the Exp-Golomb code

// How a share is predicted from those before it.
enum Predictor : unsigned { kNone = 0, kPrevious = 1, kPair = 2, kPredictors = 3 };

// The symbol that a share is predicted from, or -1.
TEXTNLP_FAST_HD inline int predicted_from(unsigned symbol, Predictor predictor, unsigned implied) {
  int from = -1;
  if (predictor == kPrevious && symbol > 0) from = static_cast<int>(symbol) - 1;
  if (predictor == kPair && symbol > 0 && symbol % 2 == 0) from = static_cast<int>(symbol) - 1;
  return from == static_cast<int>(implied) ? -1 : from;
}

TEXTNLP_FAST_HD inline std::int32_t unzigzag(std::uint32_t value) {
  return static_cast<std::int32_t>(value >> 1) ^ -static_cast<std::int32_t>(value & 1);
}

// Fills freq[0, limit); false if the table is not valid.
TEXTNLP_FAST_HD inline bool read_table(BitReader& bits, std::uint16_t* freq, unsigned limit,
                                       unsigned table_log) noexcept {
  const unsigned symbols = bits.get(kSymbolBits) + 1;
  if (bits.overrun() || symbols > limit) return false;
  std::memset(freq, 0, limit * sizeof *freq);
  const std::int64_t scale = std::int64_t{1} << table_log;
  if (symbols == 1) {
    freq[0] = static_cast<std::uint16_t>(scale);
    return true;
  }
  const unsigned implied = bits.get(1) != 0 ? bits.get(kSymbolBits) : 0;
  const unsigned predictor = bits.get(2);
  const unsigned order = bits.get(kOrderBits);
  if (implied >= symbols || predictor >= kPredictors) return false;
  std::int64_t sum = 0;
  for (unsigned s = 0; s < symbols; ++s) {
    if (s == implied) continue;
    const std::uint32_t code = bits.get_golomb(order);
    const int from = predicted_from(s, static_cast<Predictor>(predictor), implied);
    const std::int64_t share = from < 0 ? static_cast<std::int64_t>(code) : std::int64_t{freq[from]} + unzigzag(code);
    if (bits.overrun() || share < 0 || share > scale) return false;
    freq[s] = static_cast<std::uint16_t>(share);
    sum += share;
  }
  if (sum > scale) return false;
  freq[implied] = static_cast<std::uint16_t>(scale - sum);
  // The last symbol must occur: one table has one form.
  return freq[symbols - 1] != 0;
}

enum ContextCode : unsigned { kZeroOnly = 0, kAsBefore = 1, kOwnTable = 2, kEvenTable = 3 };

// Exp-Golomb order of what an even table tells of itself.
constexpr unsigned kLastOrder = 1;
constexpr unsigned kDominantOrder = 0;
constexpr unsigned kLevelOrderBits = 2;

// Shares in even tables are rounded to levels: exact below 8, then four to an octave.
TEXTNLP_FAST_HD inline unsigned level_of(unsigned share) {
  if (share < 8) return share;
  const unsigned log = floor_log2(share);
  return 8 + (log - 3) * 4 + ((share >> (log - 2)) & 3);
}

TEXTNLP_FAST_HD inline unsigned share_of(unsigned level) {
  if (level < 8) return level;
  return (4 + (level & 3)) << ((level >> 2) - 1);
}

TEXTNLP_FAST_HD inline unsigned from_before(std::uint32_t code, unsigned before) {
  return before + static_cast<unsigned>(unzigzag(code));
}

// What the tables before told of even tables: the next is told by its difference.
struct EvenHistory {
  bool any = false;
  unsigned order = 0;
  unsigned last = 0;
  unsigned levels[kMaxTokens] = {};
};

TEXTNLP_FAST_HD inline bool read_even(BitReader& bits, std::uint16_t* freq, unsigned limit, unsigned table_log,
                                      EvenHistory& history) {
  if (!history.any) history.order = bits.get(kLevelOrderBits);
  history.any = true;
  const unsigned last = from_before(bits.get_golomb(kLastOrder), history.last);
  const unsigned dominant = bits.get_golomb(kDominantOrder);
  if (bits.overrun() || last == 0 || 2 * last + 1 > limit || dominant > last) return false;
  history.last = last;
  unsigned left = 1u << (table_log - 1);
  const unsigned most = level_of(left);
  std::memset(freq, 0, limit * sizeof *freq);
  auto give = [&](unsigned bucket, unsigned share) {
    if (bucket == 0) {
      freq[0] = static_cast<std::uint16_t>(2 * share);
    } else {
      freq[2 * bucket - 1] = freq[2 * bucket] = static_cast<std::uint16_t>(share);
    }
  };
  for (unsigned b = 0; b <= last; ++b) {
    if (b == dominant) continue;
    const unsigned level = from_before(bits.get_golomb(history.order), history.levels[b]);
    if (bits.overrun() || level > most || (b == last && level == 0) || share_of(level) >= left) return false;
    left -= share_of(level);
    give(b, share_of(level));
    history.levels[b] = level;
  }
  give(dominant, left);
  history.levels[dominant] = level_of(left);
  return true;
}

TEXTNLP_FAST_HD inline ElementRule element_rule(Dtype dtype) noexcept {
  const unsigned exponent = exponent_bits(dtype);
  const auto bits = static_cast<unsigned>(element_size(dtype) * 8);
  if (exponent == 0) return {false, bits - 1, 0};
  return {true, bits - 1 - exponent, (1u << exponent) - 1};
}

TEXTNLP_FAST_HD inline TokenScheme read_scheme(ByteReader& reader) {
  const unsigned scheme = reader.byte();
  return {scheme >> 2, scheme & 3};
}

TEXTNLP_FAST_HD inline bool read_rule(ByteReader& reader, Dtype dtype, DeltaRule& rule) {
  rule.element = element_rule(dtype);
  rule.table_log = reader.byte();
  rule.scheme = read_scheme(reader);
  const std::uint64_t context_base = reader.varint();
  rule.contexts = reader.byte();
  if (reader.failed || rule.table_log < kMinTableLog || rule.table_log > kMaxTableLog || rule.contexts == 0 ||
      rule.contexts > kMaxContexts || context_base > rule.element.context_mask) {
    return false;
  }
  rule.context_base = static_cast<unsigned>(context_base);
  return true;
}

// The tables of a rule whose other fields stand; false if they are not valid.
TEXTNLP_FAST_HD inline bool read_tables(ByteReader& reader, Dtype dtype, const DeltaRule& rule,
                                        std::uint16_t (*freq)[kMaxTokens]) {
  const unsigned limit = token_limit(rule.scheme, static_cast<unsigned>(element_size(dtype) * 8));
  EvenHistory history;
  BitReader bits(reader.at, static_cast<std::size_t>(reader.end - reader.at));
  std::memset(freq, 0, rule.contexts * sizeof freq[0]);
  for (unsigned c = 0; c < rule.contexts; ++c) {
    const unsigned code = bits.get(2);
    if (code == kZeroOnly) {
      freq[c][0] = static_cast<std::uint16_t>(1u << rule.table_log);
    } else if (code == kAsBefore && c > 0) {
      std::memcpy(freq[c], freq[c - 1], sizeof freq[c]);
    } else if (code == kAsBefore) {
      return false;
    } else if (code == kOwnTable ? !read_table(bits, freq[c], limit, rule.table_log)
                                 : !read_even(bits, freq[c], limit, rule.table_log, history)) {
      return false;
    }
  }
  return !bits.overrun() && reader.take(bits.bytes()) != nullptr;
}

// The same where context_base and contexts stand already: table log, token scheme and tables.
TEXTNLP_FAST_HD inline bool read_coding(ByteReader& reader, Dtype dtype, DeltaRule& rule,
                                        std::uint16_t (*freq)[kMaxTokens]) {
  rule.table_log = reader.byte();
  rule.scheme = read_scheme(reader);
  return !reader.failed && rule.table_log >= kMinTableLog && rule.table_log <= kMaxTableLog &&
         read_tables(reader, dtype, rule, freq);
}

}  // namespace textnlp_fast

// From counts to shares, what they cost, and how a table is told: docs/format.md, "Table". Shared with the CUDA twin:
// doubles are added, multiplied and divided one by one, which every machine does alike.
#pragma once
#include <cstdint>

#include "codec/bits.h"
#include "codec/codec_kernels.h"
#include "codec/table_reading.h"
#include "codec/team.h"

namespace textnlp_fast {

constexpr unsigned kMaxSymbols = 256;

// log2 by a table and a line between its points: good to six digits, and the same on every machine, so that every
// machine makes the same choices. (The C library's differs in the last bit from one processor to the next.)
constexpr unsigned kLogBits = 10;

struct LogTable {
  double of[(1u << kLogBits) + 1];

  constexpr LogTable() : of{} {
    for (unsigned i = 0; i <= 1u << kLogBits; ++i) {
      // Squaring a number doubles its logarithm: each overflow past two is the next bit.
      double value = 1.0 + static_cast<double>(i) / (1u << kLogBits);
      double bit = 1.0;
      double log = 0;
      if (value >= 2.0) {
        value /= 2.0;
        log = 1.0;
      }
      for (unsigned step = 0; step < 40; ++step) {
        bit /= 2.0;
        value *= value;
        if (value >= 2.0) {
          value /= 2.0;
          log += bit;
        }
      }
      of[i] = log;
    }
  }
};

inline constexpr LogTable kLogs;

// What log2_of() gives for numbers up to 2^kLogBits, as shares are.
struct SmallLogs {
  double of[(1u << kLogBits) + 1];

  constexpr SmallLogs() : of{} {
    for (unsigned whole = 0; whole < kLogBits; ++whole) {
      for (unsigned value = 1u << whole; value < 2u << whole; ++value) {
        of[value] = whole + kLogs.of[(value << (kLogBits - whole)) - (1u << kLogBits)];
      }
    }
    of[1u << kLogBits] = kLogBits;
  }
};

inline constexpr SmallLogs kSmallLogs;
#if defined(__CUDACC__)
static __device__ const LogTable kDeviceLogs;
#endif

// log2 to six digits. `value` is not 0.
TEXTNLP_FAST_HD inline double log2_of(std::uint64_t value) noexcept {
#if defined(__CUDA_ARCH__)
  const double* const logs = kDeviceLogs.of;
#else
  if (value <= 1u << kLogBits) return kSmallLogs.of[value];
  const double* const logs = kLogs.of;
#endif
  const unsigned whole = floor_log2(value);
  constexpr unsigned kFractionBits = 32;
  const std::uint64_t fraction = whole >= kFractionBits
                                     ? (value >> (whole - kFractionBits)) - (std::uint64_t{1} << kFractionBits)
                                     : (value << (kFractionBits - whole)) - (std::uint64_t{1} << kFractionBits);
  const auto cell = static_cast<unsigned>(fraction >> (kFractionBits - kLogBits));
  const std::uint64_t within = fraction & ((std::uint64_t{1} << (kFractionBits - kLogBits)) - 1);
  const double share =
      static_cast<double>(within) / static_cast<double>(std::uint64_t{1} << (kFractionBits - kLogBits));
  return whole + logs[cell] + (logs[cell + 1] - logs[cell]) * share;
}

namespace choice {

// Calls `visit` with each symbol of this lane.
template <class Team, class Visit>
TEXTNLP_FAST_HD inline void own_symbols(const Team& team, unsigned symbols, const Visit& visit) {
  for (unsigned s = team.lane(); s < symbols; s += Team::kSize) visit(s);
}

// Shannon's bound for coding these counts under their own distribution, in bits.
template <class Team>
TEXTNLP_FAST_HD_CALL double entropy_bits(const Team& team, const std::uint32_t* counts, unsigned symbols) {
  std::int64_t mine = 0;
  double sum = 0;
  for (unsigned first = 0; first < symbols; first += Team::kSize) {
    const unsigned s = first + team.lane();
    const std::uint32_t count = s < symbols ? counts[s] : 0;
    mine += count;
    // Where nothing occurs, 0 is added, which changes no sum.
    sum = team.in_order(sum, count == 0 ? 0.0 : count * log2_of(count));
  }
  const auto total = static_cast<std::uint64_t>(team.sum(mine));
  return total > 0 ? static_cast<double>(total) * log2_of(total) - sum : 0;
}

// Bits that `counts` take under the shares `freq` of 2^table_log.
template <class Team>
TEXTNLP_FAST_HD_CALL double coded_bits(const Team& team, const std::uint32_t* counts, const std::uint16_t* freq,
                                       unsigned symbols, unsigned table_log) {
  double bits = 0;
  for (unsigned first = 0; first < symbols; first += Team::kSize) {
    const unsigned s = first + team.lane();
    const std::uint32_t count = s < symbols ? counts[s] : 0;
    bits = team.in_order(bits, count == 0 ? 0.0 : count * (table_log - log2_of(freq[s])));
  }
  return bits;
}

// Shares that sum to 2^table_log, at least 1 for every symbol that occurs and 0 for the others. Needs one count that is
// not zero, and at most 2^table_log such counts.
template <class Team>
TEXTNLP_FAST_HD_CALL void normalise(const Team& team, const std::uint32_t* counts, unsigned symbols, unsigned table_log,
                                    std::uint16_t* freq) {
  const std::int64_t scale = std::int64_t{1} << table_log;
  std::int64_t total = 0;
  own_symbols(team, symbols, [&](unsigned s) { total += counts[s]; });
  total = team.sum(total);
  std::int64_t given = 0;
  own_symbols(team, symbols, [&](unsigned s) {
    if (counts[s] == 0) {
      freq[s] = 0;
      return;
    }
    std::int64_t share = (counts[s] * scale + total / 2) / total;
    if (share == 0) share = 1;
    freq[s] = static_cast<std::uint16_t>(share);
    given += share;
  });
  std::int64_t left = scale - team.sum(given);
  team.sync();
  // Settle the rounding one step at a time where it costs or wins most: d(bits)/d(share) = -count / share.
  while (left != 0) {
    int best = -1;
    double best_gain = 0;
    own_symbols(team, symbols, [&](unsigned s) {
      if (freq[s] == 0 || (left < 0 && freq[s] == 1)) return;
      const double gain = left > 0 ? counts[s] / (freq[s] + 0.5) : -(counts[s] / (freq[s] - 0.5));
      if (best < 0 || gain > best_gain) {
        best = static_cast<int>(s);
        best_gain = gain;
      }
    });
    team.best(best_gain, best);
    // Steps in proportion to what is left, so that a few rounds suffice.
    std::int64_t step = left > 0 ? (left + 7) / 8 : -((-left + 7) / 8);
    const std::int64_t had = freq[best];
    if (left < 0 && had + step < 1) step = 1 - had;
    team.sync();
    if (team.lane() == 0) freq[best] = static_cast<std::uint16_t>(had + step);
    team.sync();
    left -= step;
  }
}

// About what write_table will take, in bits, at a fraction of the effort.
template <class Team>
TEXTNLP_FAST_HD_CALL unsigned estimated_table_bits(const Team& team, const std::uint16_t* freq, unsigned symbols) {
  if (symbols == 1) return kSymbolBits;
  double high = 0;
  int where = -1;
  std::int64_t all = 0;
  own_symbols(team, symbols, [&](unsigned s) {
    if (where < 0 || freq[s] > high) {
      high = freq[s];
      where = static_cast<int>(s);
    }
    all += freq[s];
  });
  team.best(high, where);
  const auto largest = static_cast<std::uint32_t>(high);
  const auto sum = static_cast<std::uint32_t>(team.sum(all));
  // An order a little below the mean of what is sent: most shares lie under it.
  const std::uint32_t mean = (sum - largest) / (symbols - 1);
  const unsigned log = floor_log2(mean | 1);
  const unsigned order = log > 1 ? log - 1 : 0;
  std::int64_t bits = 0;
  own_symbols(team, symbols, [&](unsigned s) { bits += BitWriter::golomb_bits(freq[s], order); });
  return kSymbolBits + 1 + 2 + kOrderBits + static_cast<unsigned>(team.sum(bits)) -
         BitWriter::golomb_bits(largest, order);
}

TEXTNLP_FAST_HD inline std::uint32_t zigzag(std::int32_t value) {
  return (static_cast<std::uint32_t>(value) << 1) ^ static_cast<std::uint32_t>(value >> 31);
}

TEXTNLP_FAST_HD inline std::uint32_t code_of(const std::uint16_t* freq, unsigned symbol, Predictor predictor,
                                             unsigned implied) {
  const int from = predicted_from(symbol, predictor, implied);
  if (from < 0) return freq[symbol];
  return zigzag(static_cast<std::int32_t>(freq[symbol]) - static_cast<std::int32_t>(freq[from]));
}

// How a table is told.
struct Plan {
  Predictor predictor = kNone;
  unsigned order = 0;
  unsigned implied = 0;  // the largest share, left out: the sum gives it
  unsigned bits = 0;
};

template <class Team>
TEXTNLP_FAST_HD_CALL Plan plan_table(const Team& team, const std::uint16_t* freq, unsigned symbols) {
  Plan best;
  double high = 0;
  int where = -1;
  own_symbols(team, symbols, [&](unsigned s) {
    if (where < 0 || freq[s] > high) {
      high = freq[s];
      where = static_cast<int>(s);
    }
  });
  team.best(high, where);
  best.implied = static_cast<unsigned>(where);
  best.bits = ~0u;
  const unsigned fixed = kSymbolBits + 1 + (best.implied == 0 ? 0 : kSymbolBits) + 2 + kOrderBits;
  for (unsigned p = 0; p < kPredictors; ++p) {
    const auto predictor = static_cast<Predictor>(p);
    std::uint32_t codes[kMaxSymbols / Team::kSize];
    unsigned count = 0;
    own_symbols(team, symbols, [&](unsigned s) {
      if (s != best.implied) codes[count++] = code_of(freq, s, predictor, best.implied);
    });
    unsigned last = ~0u;
    for (unsigned order = 0; order < 16; ++order) {
      std::int64_t mine = 0;
      for (unsigned i = 0; i < count; ++i) mine += BitWriter::golomb_bits(codes[i], order);
      const unsigned bits = fixed + static_cast<unsigned>(team.sum(mine));
      if (bits < best.bits) {
        best.bits = bits;
        best.predictor = predictor;
        best.order = order;
      }
      if (bits > last) break;  // the cost has one valley
      last = bits;
    }
  }
  return best;
}

// Writes what plan_table() planned; one thread. `symbols` is one more than the last symbol with a share.
TEXTNLP_FAST_HD_CALL void put_table(BitWriter& bits, const std::uint16_t* freq, unsigned symbols, const Plan& plan) {
  bits.put(symbols - 1, kSymbolBits);
  if (symbols == 1) return;
  bits.put(plan.implied == 0 ? 0 : 1, 1);
  if (plan.implied != 0) bits.put(plan.implied, kSymbolBits);
  bits.put(plan.predictor, 2);
  bits.put(plan.order, kOrderBits);
  for (unsigned s = 0; s < symbols; ++s) {
    if (s != plan.implied) bits.put_golomb(code_of(freq, s, plan.predictor, plan.implied), plan.order);
  }
}

// Shares with their starts, for the encoder.
TEXTNLP_FAST_HD inline void build_encode_symbols(const std::uint16_t* freq, unsigned symbols, EncodeSymbol* out) {
  std::uint32_t start = 0;
  for (unsigned s = 0; s < symbols; ++s) {
    out[s].freq = freq[s];
    out[s].start = static_cast<std::uint16_t>(start);
    start += freq[s];
  }
}

}  // namespace choice
}  // namespace textnlp_fast

#include "codec/tables.h"

#include <array>
#include <cstring>

#include "codec/codec_kernels.h"
#include "codec/table_reading.h"

namespace textnlp_fast {
namespace {

constexpr unsigned kMaxSymbols = 256;

// log2 by a table and a line between its points: good to six digits, and the same on every machine, so that every
// machine makes the same choices. (The C library's differs in the last bit from one processor to the next.)
constexpr unsigned kLogBits = 10;

constexpr std::array<double, (1u << kLogBits) + 1> make_logs() {
  std::array<double, (1u << kLogBits) + 1> logs{};
  for (unsigned i = 0; i < logs.size(); ++i) {
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
    logs[i] = log;
  }
  return logs;
}

constexpr auto kLogs = make_logs();

std::uint32_t zigzag(std::int32_t value) {
  return (static_cast<std::uint32_t>(value) << 1) ^ static_cast<std::uint32_t>(value >> 31);
}

std::uint32_t code_of(const std::uint16_t* freq, unsigned symbol, Predictor predictor, unsigned implied) {
  const int from = predicted_from(symbol, predictor, implied);
  if (from < 0) return freq[symbol];
  return zigzag(static_cast<std::int32_t>(freq[symbol]) - static_cast<std::int32_t>(freq[from]));
}

struct Plan {
  Predictor predictor = kNone;
  unsigned order = 0;
  unsigned implied = 0;  // the largest share, left out: the sum gives it
  unsigned bits = 0;
};

Plan plan_table(const std::uint16_t* freq, unsigned symbols) {
  Plan best;
  for (unsigned s = 1; s < symbols; ++s) {
    if (freq[s] > freq[best.implied]) best.implied = s;
  }
  best.bits = ~0u;
  const unsigned fixed = kSymbolBits + 1 + (best.implied == 0 ? 0 : kSymbolBits) + 2 + kOrderBits;
  for (unsigned p = 0; p < kPredictors; ++p) {
    const auto predictor = static_cast<Predictor>(p);
    std::uint32_t codes[kMaxSymbols];
    unsigned count = 0;
    for (unsigned s = 0; s < symbols; ++s) {
      if (s != best.implied) codes[count++] = code_of(freq, s, predictor, best.implied);
    }
    unsigned last = ~0u;
    for (unsigned order = 0; order < 16; ++order) {
      unsigned bits = fixed;
      for (unsigned i = 0; i < count; ++i) bits += BitWriter::golomb_bits(codes[i], order);
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

}  // namespace

double log2_of(std::uint64_t value) noexcept {
  const unsigned whole = 63u - static_cast<unsigned>(__builtin_clzll(value));
  constexpr unsigned kFractionBits = 32;
  const std::uint64_t fraction = whole >= kFractionBits
                                     ? (value >> (whole - kFractionBits)) - (std::uint64_t{1} << kFractionBits)
                                     : (value << (kFractionBits - whole)) - (std::uint64_t{1} << kFractionBits);
  const auto cell = static_cast<unsigned>(fraction >> (kFractionBits - kLogBits));
  const std::uint64_t within = fraction & ((std::uint64_t{1} << (kFractionBits - kLogBits)) - 1);
  const double share =
      static_cast<double>(within) / static_cast<double>(std::uint64_t{1} << (kFractionBits - kLogBits));
  return whole + kLogs[cell] + (kLogs[cell + 1] - kLogs[cell]) * share;
}

double entropy_bits(const std::uint32_t* counts, unsigned symbols) noexcept {
  std::uint64_t total = 0;
  double sum = 0;
  for (unsigned s = 0; s < symbols; ++s) {
    if (counts[s] == 0) continue;
    total += counts[s];
    sum += counts[s] * log2_of(counts[s]);
  }
  return total > 0 ? static_cast<double>(total) * log2_of(total) - sum : 0;
}

double coded_bits(const std::uint32_t* counts, const std::uint16_t* freq, unsigned symbols,
                  unsigned table_log) noexcept {
  double bits = 0;
  for (unsigned s = 0; s < symbols; ++s) {
    if (counts[s] != 0) bits += counts[s] * (table_log - log2_of(freq[s]));
  }
  return bits;
}

void normalise(const std::uint32_t* counts, unsigned symbols, unsigned table_log, std::uint16_t* freq) noexcept {
  const std::int64_t scale = std::int64_t{1} << table_log;
  std::int64_t total = 0;
  for (unsigned s = 0; s < symbols; ++s) total += counts[s];
  std::int64_t left = scale;
  for (unsigned s = 0; s < symbols; ++s) {
    if (counts[s] == 0) {
      freq[s] = 0;
      continue;
    }
    std::int64_t share = (counts[s] * scale + total / 2) / total;
    if (share == 0) share = 1;
    freq[s] = static_cast<std::uint16_t>(share);
    left -= share;
  }
  // Settle the rounding one step at a time where it costs or wins most: d(bits)/d(share) = -count / share.
  while (left != 0) {
    int best = -1;
    double best_gain = 0;
    for (unsigned s = 0; s < symbols; ++s) {
      if (freq[s] == 0 || (left < 0 && freq[s] == 1)) continue;
      const double gain = left > 0 ? counts[s] / (freq[s] + 0.5) : -(counts[s] / (freq[s] - 0.5));
      if (best < 0 || gain > best_gain) {
        best = static_cast<int>(s);
        best_gain = gain;
      }
    }
    // Steps in proportion to what is left, so that a few rounds suffice.
    std::int64_t step = left > 0 ? (left + 7) / 8 : -((-left + 7) / 8);
    if (left < 0 && freq[best] + step < 1) step = 1 - static_cast<std::int64_t>(freq[best]);
    freq[best] = static_cast<std::uint16_t>(freq[best] + step);
    left -= step;
  }
}

unsigned estimated_table_bits(const std::uint16_t* freq, unsigned symbols) noexcept {
  if (symbols == 1) return kSymbolBits;
  std::uint32_t largest = 0;
  std::uint32_t sum = 0;
  for (unsigned s = 0; s < symbols; ++s) {
    largest = freq[s] > largest ? freq[s] : largest;
    sum += freq[s];
  }
  // An order a little below the mean of what is sent: most shares lie under it.
  const std::uint32_t mean = (sum - largest) / (symbols - 1);
  const unsigned log = 31u - static_cast<unsigned>(__builtin_clz(mean | 1));
  const unsigned order = log > 1 ? log - 1 : 0;
  unsigned bits = kSymbolBits + 1 + 2 + kOrderBits;
  for (unsigned s = 0; s < symbols; ++s) bits += BitWriter::golomb_bits(freq[s], order);
  return bits - BitWriter::golomb_bits(largest, order);
}

void write_table(BitWriter& bits, const std::uint16_t* freq, unsigned symbols) {
  bits.put(symbols - 1, kSymbolBits);
  if (symbols == 1) return;
  const Plan plan = plan_table(freq, symbols);
  bits.put(plan.implied == 0 ? 0 : 1, 1);
  if (plan.implied != 0) bits.put(plan.implied, kSymbolBits);
  bits.put(plan.predictor, 2);
  bits.put(plan.order, kOrderBits);
  for (unsigned s = 0; s < symbols; ++s) {
    if (s != plan.implied) bits.put_golomb(code_of(freq, s, plan.predictor, plan.implied), plan.order);
  }
}

void build_encode_symbols(const std::uint16_t* freq, unsigned symbols, EncodeSymbol* out) noexcept {
  std::uint32_t start = 0;
  for (unsigned s = 0; s < symbols; ++s) {
    out[s].freq = freq[s];
    out[s].start = static_cast<std::uint16_t>(start);
    start += freq[s];
  }
}

void build_slots(const std::uint16_t* freq, unsigned symbols, std::uint32_t* slots) noexcept {
  for (unsigned s = 0; s < symbols; ++s) {
    if (freq[s] == 0) continue;
    const std::uint32_t first = slot_entry(s, freq[s], 0);
    const std::uint32_t step = slot_entry(s, freq[s], 1) - first;
    // Four at a time, which compilers make one store of.
    std::uint32_t offset = 0;
    for (; offset + 4 <= freq[s]; offset += 4) {
      for (std::uint32_t k = 0; k < 4; ++k) slots[offset + k] = first + (offset + k) * step;
    }
    for (; offset < freq[s]; ++offset) slots[offset] = first + offset * step;
    slots += freq[s];
  }
}

}  // namespace textnlp_fast

// The size of the step that an optimiser took, found from its outcomes. Shared with the CUDA twin: doubles are worked
// with one by one, halves of sums of neighbours are exact.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "codec/edge_order.h"
#include "codec/step_formats.h"

namespace textnlp_fast {

constexpr std::size_t kStepSamples = 160;
constexpr std::size_t kStepLooked = 1200;
constexpr double kExplained = 0.9;
constexpr double kTight = 1.0 / 16;
// What an exception takes besides its bits, about.
constexpr double kExceptionBits = 12;

namespace choice {

// The steps, up or down, that lead from `from` to `to`: those between two distances. False if the bounds are not plain.
template <class Format>
TEXTNLP_FAST_HD inline bool step_between(typename Format::Word from, typename Format::Word to, double& least,
                                         double& most) {
  using Word = typename Format::Word;
  const Word magnitude = to & static_cast<Word>(~(Word{1} << (sizeof(Word) * 8 - 1)));
  if (magnitude == 0 || (to & Format::kExponent) == Format::kExponent ||
      (from & Format::kExponent) == Format::kExponent) {
    return false;
  }
  const double start = Format::wide(from);
  const double end = Format::wide(to);
  const double below = (end + Format::wide(static_cast<Word>(to - 1))) / 2;
  const double above = ((to + 1) & Format::kExponent) == Format::kExponent
                           ? end + (end - below)
                           : (end + Format::wide(static_cast<Word>(to + 1))) / 2;
  const double a = fabs(below - start);
  const double b = fabs(above - start);
  least = b < a ? b : a;
  most = a < b ? b : a;
  return most > 0;
}

// The shortest decimal number between two: learning rates are such. Powers of ten by multiplication: the C library's
// differ from one to the next.
TEXTNLP_FAST_HD_CALL double roundest(double least, double most) {
  double unit = 1;
  while (unit > most && unit > 0) unit /= 10;
  while (unit > 0 && unit * 10 <= most) unit *= 10;
  for (unsigned digits = 0; digits < 6; ++digits, unit /= 10) {
    const double rounded = floor(most / unit) * unit;
    if (rounded >= least && rounded > 0) return rounded;
  }
  return (least + most) / 2;
}

// The step that most of the intervals have in common, 0 if not nearly all do. Two edges an interval.
TEXTNLP_FAST_HD_CALL float common_step(Edge* edge, std::size_t sampled) {
  if (sampled < kStepSamples / 8) return 0;
  edges::sort(edge, static_cast<std::ptrdiff_t>(2 * sampled));
  int covered = 0;
  int best = 0;
  std::size_t where = 0;
  for (std::size_t e = 0; e + 1 < 2 * sampled; ++e) {
    covered += edge[e].change;
    if (covered > best) {
      best = covered;
      where = e;
    }
  }
  const double size = best == 0 ? 0 : roundest(edge[where].at, edge[where + 1].at);
  const auto narrowed = static_cast<float>(size);
  const std::uint32_t bits = bits_of(narrowed) & 0x7fffffff;
  const bool normal = bits >= 0x00800000 && bits < 0x7f800000;
  return best >= kExplained * static_cast<double>(sampled) && normal ? narrowed : 0;
}

// Changed elements from all over. Small ones say more: they were rounded less. `from(i)` and `to(i)` are the words of
// element `i`; `edge` has room for 2 * kStepSamples.
template <class Format, class From, class To>
TEXTNLP_FAST_HD inline float find_step(std::size_t count, const From& from_at, const To& to_at, Edge* edge) {
  using Word = typename Format::Word;
  std::size_t sampled = 0;
  std::size_t loose = 0;
  const std::size_t stride = count < kStepLooked ? 1 : count / kStepLooked;
  for (std::size_t i = 0; i < count && sampled < kStepSamples; i += stride) {
    const Word from = from_at(i);
    const Word to = to_at(i);
    double least;
    double most;
    if (from == to || !step_between<Format>(from, to, least, most)) continue;
    if (most - least > kTight * most && ++loose > kStepSamples / 4) continue;
    edge[2 * sampled] = {least, 1};
    edge[2 * sampled + 1] = {most, -1};
    ++sampled;
  }
  return common_step(edge, sampled);
}

}  // namespace choice
}  // namespace textnlp_fast

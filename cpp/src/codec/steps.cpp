#include "codec/steps.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/chance.h"
#include "cpu/float_environment.h"
#include "textnlp_fast/dtype.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kSamples = 160;
constexpr std::size_t kLooked = 1200;
constexpr double kExplained = 0.9;
constexpr double kTight = 1.0 / 16;

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The formats, by their arithmetic: to single precision, which holds them all exactly, and back to the nearest, ties to
// even. Only finite numbers are handed over.
struct Bfloat16 {
  using Word = std::uint16_t;
  static constexpr Word kExponent = 0x7f80;
  static float wide(Word bits) { return float_of(static_cast<std::uint32_t>(bits) << 16); }
  static Word narrow(float value) {
    const std::uint32_t bits = bits_of(value);
    return static_cast<Word>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

struct Float16 {
  using Word = std::uint16_t;
  static constexpr Word kExponent = 0x7c00;
  static float wide(Word bits) {
    // The exponent of the smallest single is 112 below that of the smallest half: scaled up, subnormals come out right.
    const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fff) << 13;
    const float scaled = float_of(magnitude) * 0x1p112F;
    return float_of(bits_of(scaled) | static_cast<std::uint32_t>(bits & 0x8000) << 16);
  }
  static Word narrow(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000;
    const std::uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x477ff000) return static_cast<Word>(sign | 0x7c00);
    if (magnitude < 0x38800000) {
      // Adding one half's worth of the last place's weight lets the addition round to the grid of the subnormals.
      const float rounded = float_of(magnitude) + 0.5F;
      return static_cast<Word>(sign | (bits_of(rounded) - bits_of(0.5F)));
    }
    const std::uint32_t rebased = magnitude - (112u << 23);
    return static_cast<Word>(sign | ((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13));
  }
};

struct Float32 {
  using Word = std::uint32_t;
  static constexpr Word kExponent = 0x7f800000;
  static float wide(Word bits) { return float_of(bits); }
  static Word narrow(float value) { return bits_of(value); }
};

// Calls `action` with the format of a type that has steps.
template <class Action>
void by_format(Dtype dtype, const Action& action) {
  switch (dtype) {
    case Dtype::bf16: return action(Bfloat16{});
    case Dtype::f16: return action(Float16{});
    default: return action(Float32{});
  }
}

template <class Word>
Word word_at(const std::uint8_t* data, std::size_t index) {
  Word word;
  std::memcpy(&word, data + index * sizeof word, sizeof word);
  return word;
}

// The steps, up or down, that lead from `from` to `to`: those between two distances. False if the bounds are not plain.
template <class Format>
bool step_between(typename Format::Word from, typename Format::Word to, double& least, double& most) {
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
  const double a = std::fabs(below - start);
  const double b = std::fabs(above - start);
  least = std::min(a, b);
  most = std::max(a, b);
  return most > 0;
}

// The shortest decimal number between two: learning rates are such. Powers of ten by multiplication: the C library's
// differ from one to the next.
double roundest(double least, double most) {
  double unit = 1;
  while (unit > most && unit > 0) unit /= 10;
  while (unit > 0 && unit * 10 <= most) unit *= 10;
  for (unsigned digits = 0; digits < 6; ++digits, unit /= 10) {
    const double rounded = std::floor(most / unit) * unit;
    if (rounded >= least && rounded > 0) return rounded;
  }
  return (least + most) / 2;
}

// Out of line, as step_all().
template <class Format>
__attribute__((noinline)) float find(const std::uint8_t* target, const std::uint8_t* base, std::size_t count) {
  using Word = typename Format::Word;
  struct Edge {
    double at;
    int change;
  };
  Edge edges[2 * kSamples];
  // Changed elements from all over. Small ones say more: they were rounded less.
  std::size_t sampled = 0;
  std::size_t loose = 0;
  const std::size_t stride = std::max<std::size_t>(1, count / kLooked);
  for (std::size_t i = 0; i < count && sampled < kSamples; i += stride) {
    const Word from = word_at<Word>(base, i);
    const Word to = word_at<Word>(target, i);
    double least;
    double most;
    if (from == to || !step_between<Format>(from, to, least, most)) continue;
    if (most - least > kTight * most && ++loose > kSamples / 4) continue;
    edges[2 * sampled] = {least, 1};
    edges[2 * sampled + 1] = {most, -1};
    ++sampled;
  }
  if (sampled < kSamples / 8) return 0;
  std::sort(edges, edges + 2 * sampled, [](const Edge& a, const Edge& b) { return a.at < b.at; });
  int covered = 0;
  int best = 0;
  double size = 0;
  for (std::size_t e = 0; e + 1 < 2 * sampled; ++e) {
    covered += edges[e].change;
    if (covered > best) {
      best = covered;
      size = roundest(edges[e].at, edges[e + 1].at);
    }
  }
  const auto narrowed = static_cast<float>(size);
  return best >= kExplained * static_cast<double>(sampled) && std::isnormal(narrowed) ? narrowed : 0;
}

// What is no step is marked in groups of so many elements.
constexpr std::size_t kGroup = 32;

struct Exceptions {
  Chance in_group;
  Chance here;
  Chance stayed;
};

template <class Word>
struct StepWords {
  Word from;
  Word up;
  Word down;
  [[nodiscard]] bool movable() const { return up != from || down != from; }
};

template <class Word>
StepWords<Word> words_at(const std::uint8_t* base, const Outcomes& outcomes, std::size_t i) {
  return {word_at<Word>(base, i), word_at<Word>(outcomes.up.data(), i), word_at<Word>(outcomes.down.data(), i)};
}

template <class Word>
void put_whole(PairWriter& out, Word word) {
  for (unsigned done = 0; done < sizeof(Word) * 8; done += 16)
    out.put_bits(static_cast<std::uint16_t>(word >> done), 16);
}

template <class Word>
Word take_whole(PairReader& in) {
  Word word = 0;
  for (unsigned done = 0; done < sizeof(Word) * 8; done += 16) {
    word = static_cast<Word>(word | static_cast<Word>(in.bits(16)) << done);
  }
  return word;
}

// Out of line: no arithmetic may leave the stretch in which it is the default one.
template <class Format>
__attribute__((noinline)) void step_all(const std::uint8_t* base, std::size_t count, float size, std::uint8_t* up,
                                        std::uint8_t* down) {
  using Word = typename Format::Word;
  for (std::size_t i = 0; i < count; ++i) {
    const Word from = word_at<Word>(base, i);
    const bool finite = (from & Format::kExponent) != Format::kExponent;
    const float value = Format::wide(from);
    const Word raised = finite ? Format::narrow(value + size) : from;
    const Word lowered = finite ? Format::narrow(value - size) : from;
    std::memcpy(up + i * sizeof(Word), &raised, sizeof(Word));
    std::memcpy(down + i * sizeof(Word), &lowered, sizeof(Word));
  }
}

}  // namespace

bool has_steps(Dtype dtype) noexcept { return dtype == Dtype::bf16 || dtype == Dtype::f16 || dtype == Dtype::f32; }

void Outcomes::work_out(Dtype dtype, const std::uint8_t* base, std::size_t count, float size) {
  const std::size_t bytes = count * element_size(dtype);
  if (up.size() < bytes) up.resize(bytes);
  if (down.size() < bytes) down.resize(bytes);
  const DefaultArithmetic arithmetic;
  by_format(dtype, [&](auto format) { step_all<decltype(format)>(base, count, size, up.data(), down.data()); });
}

float find_step(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t count) {
  const DefaultArithmetic arithmetic;
  float size = 0;
  by_format(dtype, [&](auto format) { size = find<decltype(format)>(target, base, count); });
  return size;
}

double write_steps(PairWriter& out, Dtype dtype, const std::uint8_t* target, const std::uint8_t* base,
                   std::size_t count, std::size_t events, const Outcomes& outcomes,
                   std::vector<std::uint8_t>& directions) {
  constexpr double kExceptionBits = 12;
  directions.assign((count + 7) / 8 + 8, 0);
  std::size_t movable = 0;
  std::uint64_t pending = 0;  // directions since the last whole word
  std::size_t exceptions = 0;
  double bits = 0;
  by_format(dtype, [&](auto format) {
    using Word = typename decltype(format)::Word;
    Exceptions chances;
    for (std::size_t group = 0; group < count; group += kGroup) {
      const std::size_t end = std::min(count, group + kGroup);
      std::uint32_t odd = 0;
      for (std::size_t i = group; i < end; ++i) {
        const auto words = words_at<Word>(base, outcomes, i);
        const Word to = word_at<Word>(target, i);
        const std::uint32_t up = to == words.up ? 1 : 0;
        const std::uint32_t down = to == words.down ? 1 : 0;
        const std::uint32_t can = words.movable() ? 1 : 0;
        odd |= ((up | down) ^ 1) << (i - group);
        pending |= static_cast<std::uint64_t>(up & can) << movable % 64;
        movable += can;
        // Whole words when they are full, and on the way: a branch would be guessed wrong.
        std::memcpy(directions.data() + (movable - can) / 64 * 8, &pending, sizeof pending);
        pending = movable % 64 == 0 && can != 0 ? 0 : pending;
      }
      write_bit(out, chances.in_group, odd != 0);
      for (std::size_t i = group; i < end && odd != 0; ++i) {
        const bool here = ((odd >> (i - group)) & 1) != 0;
        write_bit(out, chances.here, here);
        if (!here) continue;
        const auto words = words_at<Word>(base, outcomes, i);
        const Word to = word_at<Word>(target, i);
        ++exceptions;
        if (words.movable() && i < count - events) {
          write_bit(out, chances.stayed, to == words.from);
          if (to == words.from) continue;
        }
        put_whole(out, to);
        bits += sizeof(Word) * 8;
      }
    }
  });
  directions.resize((movable + 7) / 8);
  return bits + static_cast<double>(movable) + kExceptionBits * static_cast<double>(exceptions);
}

std::size_t count_movable(Dtype dtype, const std::uint8_t* base, std::size_t count, const Outcomes& outcomes) {
  std::size_t movable = 0;
  by_format(dtype, [&](auto format) {
    using Word = typename decltype(format)::Word;
    for (std::size_t i = 0; i < count; ++i) movable += words_at<Word>(base, outcomes, i).movable() ? 1 : 0;
  });
  return movable;
}

void read_steps(PairReader& in, Dtype dtype, const std::uint8_t* base, std::uint8_t* target, std::size_t count,
                std::size_t events, const Outcomes& outcomes, const std::uint8_t* directions) {
  by_format(dtype, [&](auto format) {
    using Word = typename decltype(format)::Word;
    std::size_t movable = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto words = words_at<Word>(base, outcomes, i);
      // One byte more may be read than there are directions: the caller has it.
      const unsigned up = (directions[movable / 8] >> movable % 8) & 1u;
      // No branch: it would be guessed wrong every other time.
      const auto mask = static_cast<Word>(0 - static_cast<Word>(up));
      const auto to = static_cast<Word>(words.down ^ (static_cast<Word>(words.up ^ words.down) & mask));
      movable += words.movable() ? 1 : 0;
      std::memcpy(target + i * sizeof(Word), &to, sizeof(Word));
    }
    Exceptions chances;
    for (std::size_t group = 0; group < count; group += kGroup) {
      if (!read_bit(in, chances.in_group)) continue;
      const std::size_t end = std::min(count, group + kGroup);
      for (std::size_t i = group; i < end; ++i) {
        if (!read_bit(in, chances.here)) continue;
        const auto words = words_at<Word>(base, outcomes, i);
        const bool stayed = words.movable() && i < count - events && read_bit(in, chances.stayed);
        const Word to = stayed ? words.from : take_whole<Word>(in);
        std::memcpy(target + i * sizeof(Word), &to, sizeof(Word));
      }
    }
  });
}

}  // namespace textnlp_fast

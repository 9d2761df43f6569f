#include "codec/steps.h"

#include <algorithm>
#include <cstring>

#include "codec/chance.h"
#include "codec/step_choice.h"
#include "codec/step_formats.h"
#include "codec/steps_scalar.h"
#include "cpu/float_environment.h"
#include "cpu/kernels.h"
#include "textnlp_fast/dtype.h"

namespace textnlp_fast {
namespace {

// Calls `action` with the format of a type that has steps.
template <class Action>
void by_format(Dtype dtype, const Action& action) {
  switch (dtype) {
    case Dtype::bf16: return action(Bfloat16{});
    case Dtype::f16: return action(Float16{});
    default: return action(Float32{});
  }
}

// Out of line, as step_all().
template <class Format>
__attribute__((noinline)) float find(const std::uint8_t* target, const std::uint8_t* base, std::size_t count) {
  using Word = typename Format::Word;
  Edge edges[2 * kStepSamples];
  return choice::find_step<Format>(
      count, [=](std::size_t i) { return word_at<Word>(base, i); },
      [=](std::size_t i) { return word_at<Word>(target, i); }, edges);
}

struct Exceptions {
  Chance in_group;
  Chance here;
  Chance stayed;
};

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

}  // namespace

void Outcomes::work_out(Dtype dtype, const std::uint8_t* base, std::size_t count, float size) {
  const std::size_t bytes = count * element_size(dtype);
  if (up.size() < bytes) up.resize(bytes);
  if (down.size() < bytes) down.resize(bytes);
  const DefaultArithmetic arithmetic;
  if (dtype == Dtype::bf16) return kernels().codec->bf16_steps(base, count, size, up.data(), down.data());
  by_format(dtype, [&](auto format) { step_all<decltype(format)>(base, 0, count, size, up.data(), down.data()); });
}

float find_step(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t count) {
  const DefaultArithmetic arithmetic;
  float size = 0;
  by_format(dtype, [&](auto format) { size = find<decltype(format)>(target, base, count); });
  return size;
}

double write_steps(PairWriter& out, Dtype dtype, const std::uint8_t* target, const std::uint8_t* base,
                   std::size_t count, std::size_t events, const Outcomes& outcomes, Directions& directions) {
  const std::uint8_t* const up = outcomes.up.data();
  const std::uint8_t* const down = outcomes.down.data();
  directions.prepare(count);
  std::uint32_t* const odd = directions.odd.data();
  std::size_t movable = 0;
  std::size_t exceptions = 0;
  double bits = 0;
  by_format(dtype, [&](auto format) {
    using Word = typename decltype(format)::Word;
    if constexpr (sizeof(Word) == 2) {
      movable = kernels().codec->steps_tell(target, base, up, down, count, odd, directions.bytes.data());
    } else {
      BitTail tail(directions.bytes.data());
      tell_moves<Word>(target, base, up, down, 0, count, odd, tail);
      movable = tail.total;
    }
    Exceptions chances;
    for (std::size_t group = 0; group < count; group += kStepGroup) {
      const std::size_t end = std::min(count, group + kStepGroup);
      const std::uint32_t others = odd[group / kStepGroup];
      write_bit(out, chances.in_group, others != 0);
      for (std::size_t i = group; i < end && others != 0; ++i) {
        const bool here = ((others >> (i - group)) & 1) != 0;
        write_bit(out, chances.here, here);
        if (!here) continue;
        const auto words = words_at<Word>(base, up, down, i);
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
  directions.size = (movable + 7) / 8;
  return bits + static_cast<double>(movable) + kExceptionBits * static_cast<double>(exceptions);
}

std::size_t count_movable(Dtype dtype, const std::uint8_t* base, std::size_t count, const Outcomes& outcomes) {
  const std::uint8_t* const up = outcomes.up.data();
  const std::uint8_t* const down = outcomes.down.data();
  return element_size(dtype) == 2 ? kernels().codec->steps_count(base, up, down, count)
                                  : count_moves<std::uint32_t>(base, up, down, 0, count);
}

void read_steps(PairReader& in, Dtype dtype, const std::uint8_t* base, std::uint8_t* target, std::size_t count,
                std::size_t events, const Outcomes& outcomes, const std::uint8_t* directions) {
  const std::uint8_t* const up = outcomes.up.data();
  const std::uint8_t* const down = outcomes.down.data();
  by_format(dtype, [&](auto format) {
    using Word = typename decltype(format)::Word;
    if constexpr (sizeof(Word) == 2) {
      kernels().codec->steps_take(base, up, down, directions, count, target);
    } else {
      take_moves<Word>(base, up, down, directions, 0, 0, count, target);
    }
    Exceptions chances;
    for (std::size_t group = 0; group < count; group += kStepGroup) {
      if (!read_bit(in, chances.in_group)) continue;
      const std::size_t end = std::min(count, group + kStepGroup);
      for (std::size_t i = group; i < end; ++i) {
        if (!read_bit(in, chances.here)) continue;
        const auto words = words_at<Word>(base, up, down, i);
        const bool stayed = words.movable() && i < count - events && read_bit(in, chances.stayed);
        const Word to = stayed ? words.from : take_whole<Word>(in);
        std::memcpy(target + i * sizeof(Word), &to, sizeof(Word));
      }
    }
  });
}

}  // namespace textnlp_fast

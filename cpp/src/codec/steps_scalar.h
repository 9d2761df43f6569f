// The loops over elements of which each has two outcomes: scalar code for every width, and what vectors leave over.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "codec/step_formats.h"

namespace textnlp_fast {
namespace {

// Elements are told in groups of so many.
constexpr std::size_t kStepGroup = 32;

template <class Word>
Word word_at(const std::uint8_t* data, std::size_t index) {
  Word word;
  std::memcpy(&word, data + index * sizeof word, sizeof word);
  return word;
}

template <class Word>
struct StepWords {
  Word from;
  Word up;
  Word down;
  [[nodiscard]] bool movable() const { return up != from || down != from; }
};

template <class Word>
StepWords<Word> words_at(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down, std::size_t i) {
  return {word_at<Word>(base, i), word_at<Word>(up, i), word_at<Word>(down, i)};
}

// Out of line: no arithmetic may leave the stretch in which it is the default one.
template <class Format>
__attribute__((noinline)) void step_all(const std::uint8_t* base, std::size_t first, std::size_t count, float size,
                                        std::uint8_t* up, std::uint8_t* down) {
  using Word = typename Format::Word;
  for (std::size_t i = first; i < count; ++i) {
    const Word from = word_at<Word>(base, i);
    const bool finite = (from & Format::kExponent) != Format::kExponent;
    const float value = Format::wide(from);
    const Word raised = finite ? Format::narrow(value + size) : from;
    const Word lowered = finite ? Format::narrow(value - size) : from;
    std::memcpy(up + i * sizeof(Word), &raised, sizeof(Word));
    std::memcpy(down + i * sizeof(Word), &lowered, sizeof(Word));
  }
}

template <class Word>
std::size_t count_moves(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down, std::size_t first,
                        std::size_t count) {
  std::size_t movable = 0;
  for (std::size_t i = first; i < count; ++i) movable += words_at<Word>(base, up, down, i).movable() ? 1 : 0;
  return movable;
}

// Directions from bit `movable` on; a byte past the last is looked at. Returns the bit after them.
template <class Word>
std::size_t take_moves(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                       const std::uint8_t* directions, std::size_t movable, std::size_t first, std::size_t count,
                       std::uint8_t* target) {
  for (std::size_t i = first; i < count; ++i) {
    const auto words = words_at<Word>(base, up, down, i);
    const unsigned raised = (directions[movable / 8] >> movable % 8) & 1u;
    // No branch: it would be guessed wrong every other time.
    const auto mask = static_cast<Word>(0 - static_cast<Word>(raised));
    const auto to = static_cast<Word>(words.down ^ (static_cast<Word>(words.up ^ words.down) & mask));
    movable += words.movable() ? 1 : 0;
    std::memcpy(target + i * sizeof(Word), &to, sizeof(Word));
  }
  return movable;
}

// Bits one after the other: whole bytes when they are full, and what is pending on the way. Up to eight bytes past the
// last bit are written.
struct BitTail {
  std::uint8_t* at;
  std::uint64_t pending = 0;
  unsigned fill = 0;  // below 8 between calls
  std::size_t total = 0;

  explicit BitTail(std::uint8_t* to) : at(to) {}

  // Up to 32.
  void put(std::uint32_t bits, unsigned count) {
    pending |= static_cast<std::uint64_t>(bits) << fill;
    fill += count;
    total += count;
    std::memcpy(at, &pending, sizeof pending);
    at += fill / 8;
    pending >>= fill / 8 * 8;
    fill %= 8;
  }
};

// From element `first`, the first of a group: a bit of odd[] for each that is neither outcome, and a direction for each
// that can move.
template <class Word>
void tell_moves(const std::uint8_t* target, const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                std::size_t first, std::size_t count, std::uint32_t* odd, BitTail& directions) {
  for (std::size_t group = first; group < count; group += kStepGroup) {
    const std::size_t end = count - group < kStepGroup ? count : group + kStepGroup;
    std::uint32_t others = 0;
    for (std::size_t i = group; i < end; ++i) {
      const auto words = words_at<Word>(base, up, down, i);
      const Word to = word_at<Word>(target, i);
      const std::uint32_t raised = to == words.up ? 1 : 0;
      const std::uint32_t lowered = to == words.down ? 1 : 0;
      others |= ((raised | lowered) ^ 1) << (i - group);
      const unsigned can = words.movable() ? 1 : 0;
      directions.put(raised & can, can);
    }
    odd[group / kStepGroup] = others;
  }
}

}  // namespace
}  // namespace textnlp_fast

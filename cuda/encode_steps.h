// The changes of a sparse frame as steps of an optimiser: by a block, whose warps take groups of 32 elements.
#pragma once
#include "codec/steps.h"
#include "cuda/encode_places.h"

namespace textnlp_fast::device {

constexpr std::size_t kGroup = 32;

TEXTNLP_FAST_DEVICE std::size_t groups_of(std::size_t elements) { return (elements + kGroup - 1) / kGroup; }

// An element and what a step can make of it.
template <class Format>
struct Stepped {
  using Word = typename Format::Word;
  Word from;
  Word to;
  Word up;
  Word down;

  TEXTNLP_FAST_DEVICE Stepped(const Encoding& encoding, std::size_t i, float step)
      : from(load<Word>(encoding.room.from, i)), to(load<Word>(encoding.room.to, i)), up(from), down(from) {
    if ((from & Format::kExponent) == Format::kExponent) return;
    up = Format::narrow(Format::wide(from) + step);
    down = Format::narrow(Format::wide(from) - step);
  }

  [[nodiscard]] TEXTNLP_FAST_DEVICE bool movable() const { return up != from || down != from; }
  [[nodiscard]] TEXTNLP_FAST_DEVICE bool odd() const { return to != up && to != down; }
};

// Finds the step that explains most changes, in shared.step: a warp looks at elements from all over, 32 at a time, and
// keeps those that one after the other would.
template <class Format>
TEXTNLP_FAST_DEVICE_CALL void find_step(const Encoding& encoding, std::size_t count) {
  using Word = typename Format::Word;
  EncodeShared& shared = encoding.shared;
  if (simt::warp() == 0) {
    const std::size_t stride = count < kStepLooked ? 1 : count / kStepLooked;
    unsigned sampled = 0;
    unsigned loose = 0;
    for (std::size_t first = 0; first < count && sampled < kStepSamples; first += stride * simt::kWarp) {
      const std::size_t i = first + stride * simt::lane();
      double least = 0;
      double most = 0;
      bool valid = false;
      if (i < count) {
        const Word from = load<Word>(encoding.room.from, i);
        const Word to = load<Word>(encoding.room.to, i);
        valid = from != to && choice::step_between<Format>(from, to, least, most);
      }
      const bool is_loose = valid && most - least > kTight * most;
      const std::uint32_t all_loose = simt::ballot(is_loose);
      const unsigned rank = loose + simt::count_bits(all_loose & simt::lanes_below()) + 1;
      const bool kept = valid && (!is_loose || rank <= kStepSamples / 4);
      const std::uint32_t all_kept = simt::ballot(kept);
      const unsigned place = sampled + simt::count_bits(all_kept & simt::lanes_below());
      if (kept && place < kStepSamples) {
        shared.edges[2 * place] = {least, 1};
        shared.edges[2 * place + 1] = {most, -1};
      }
      loose += simt::count_bits(all_loose);
      sampled += simt::count_bits(all_kept);
    }
    simt::sync_warp();
    sampled = sampled < kStepSamples ? sampled : static_cast<unsigned>(kStepSamples);
    if (simt::lane() == 0) shared.step = choice::common_step(shared.edges, sampled);
  }
  simt::sync_block();
}

// About what telling the changes as steps takes, in bits, in shared.steps_bits: 0 if they are none. Which elements are
// neither outcome, and how many of each group can move, stay in the room.
template <class Format>
TEXTNLP_FAST_DEVICE_CALL void measure_steps(const Encoding& encoding, std::size_t count) {
  using Word = typename Format::Word;
  EncodeShared& shared = encoding.shared;
  if (simt::thread() < 3) shared.counters[simt::thread()] = 0;
  simt::sync_block();
  const float step = shared.step;
  unsigned long long movable = 0;
  unsigned long long exceptions = 0;
  unsigned long long whole = 0;
  for (std::size_t group = simt::warp(); group < groups_of(count); group += kEncodeWarps) {
    const std::size_t i = group * kGroup + simt::lane();
    bool can = false;
    bool odd = false;
    bool stayed = false;
    if (i < count) {
      const Stepped<Format> element(encoding, i, step);
      can = element.movable();
      odd = element.odd();
      stayed = can && i < shared.listed && element.to == element.from;
    }
    const std::uint32_t able = simt::ballot(can);
    const std::uint32_t odds = simt::ballot(odd);
    movable += simt::count_bits(able);
    exceptions += simt::count_bits(odds);
    whole += simt::count_bits(odds & ~simt::ballot(stayed));
    if (simt::lane() != 0) continue;
    encoding.room.masks[group] = odds;
    encoding.room.moves[group] = simt::count_bits(able);
  }
  if (simt::lane() == 0) {
    simt::atomic_add(&shared.counters[0], movable);
    simt::atomic_add(&shared.counters[1], exceptions);
    simt::atomic_add(&shared.counters[2], whole);
  }
  simt::sync_block();
  if (simt::thread() == 0) {
    shared.movable = static_cast<std::uint32_t>(shared.counters[0]);
    shared.steps_bits = static_cast<double>(shared.counters[2] * sizeof(Word) * 8) +
                        static_cast<double>(shared.counters[0]) +
                        kExceptionBits * static_cast<double>(shared.counters[1]);
  }
  simt::sync_block();
}

// The exceptions' symbols, behind those of the places: a chain, by one thread.
template <class Format>
TEXTNLP_FAST_DEVICE_CALL void tell_exceptions(const Encoding& encoding, std::size_t count) {
  EncodeShared& shared = encoding.shared;
  Chance in_group;
  Chance here;
  Chance stayed;
  std::uint32_t* to = encoding.room.symbols + shared.symbols;
  for (std::size_t group = 0; group < groups_of(count); ++group) {
    const std::uint32_t odds = encoding.room.masks[group];
    *to++ = bit_symbol(in_group, odds != 0);
    if (odds == 0) continue;
    const std::size_t first = group * kGroup;
    const std::size_t lanes = count - first < kGroup ? count - first : kGroup;
    for (unsigned lane = 0; lane < lanes; ++lane) {
      const bool odd = (odds >> lane & 1) != 0;
      *to++ = bit_symbol(here, odd);
      if (!odd) continue;
      const Stepped<Format> element(encoding, first + lane, shared.step);
      if (element.movable() && first + lane < shared.listed) {
        *to++ = bit_symbol(stayed, element.to == element.from);
        if (element.to == element.from) continue;
      }
      for (unsigned done = 0; done < sizeof(element.to) * 8; done += 16) {
        *to++ = raw_symbol(static_cast<std::uint16_t>(element.to >> done), 16);
      }
    }
  }
  shared.symbols = static_cast<std::uint32_t>(to - encoding.room.symbols);
}

// Turns the groups' numbers of directions into those before each; by one warp.
TEXTNLP_FAST_DEVICE_CALL void place_groups(const Encoding& encoding, std::size_t count) {
  std::uint32_t before = 0;
  for (std::size_t first = 0; first < groups_of(count); first += simt::kWarp) {
    const std::size_t group = first + simt::lane();
    const bool mine = group < groups_of(count);
    std::uint32_t total = 0;
    const std::uint32_t below = simt::sum_below(mine ? encoding.room.moves[group] : 0, &total);
    if (mine) encoding.room.moves[group] = before + below;
    before += total;
  }
}

// A bit for each element that can move.
template <class Format>
TEXTNLP_FAST_DEVICE_CALL void tell_directions(const Encoding& encoding, std::size_t count) {
  const EncodeShared& shared = encoding.shared;
  std::uint32_t* const directions = encoding.room.directions;
  for (std::uint32_t word = simt::thread(); word <= shared.movable / 32; word += kEncodeThreads) directions[word] = 0;
  if (simt::warp() == 0) place_groups(encoding, count);
  simt::sync_block();
  for (std::size_t group = simt::warp(); group < groups_of(count); group += kEncodeWarps) {
    const std::size_t i = group * kGroup + simt::lane();
    bool can = false;
    bool raised = false;
    if (i < count) {
      const Stepped<Format> element(encoding, i, shared.step);
      can = element.movable();
      raised = can && element.to == element.up;
    }
    const std::uint32_t able = simt::ballot(can);
    const std::uint32_t at = encoding.room.moves[group];
    // The bits of those that can move, side by side.
    std::uint32_t bits = raised ? 1u << simt::count_bits(able & simt::lanes_below()) : 0;
    for (unsigned step = simt::kWarp / 2; step != 0; step /= 2) bits |= simt::shuffle(bits, simt::lane() ^ step);
    if (simt::lane() != 0 || bits == 0) continue;
    simt::atomic_or(&directions[at / 32], bits << at % 32);
    if (at % 32 != 0 && bits >> (32 - at % 32) != 0) simt::atomic_or(&directions[at / 32 + 1], bits >> (32 - at % 32));
  }
  simt::sync_block();
}

// Calls `action` with the format of a type that has steps and these words.
template <class U, class Action>
TEXTNLP_FAST_DEVICE void with_format(Dtype dtype, const Action& action) {
  if constexpr (sizeof(U) == 2) {
    if (dtype == Dtype::bf16) {
      action(Bfloat16{});
    } else {
      action(Float16{});
    }
  } else if constexpr (sizeof(U) == 4) {
    action(Float32{});
  }
}

}  // namespace textnlp_fast::device

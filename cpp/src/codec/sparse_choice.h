// Whether and how a sparse frame is made: docs/format.md, "Sparse". Shared with the CUDA twin.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "codec/frame.h"
#include "codec/sparse_rule.h"
#include "codec/table_choice.h"

namespace textnlp_fast {

// Above this share of changed elements a delta frame is quicker and hardly larger, unless many blocks stay: every so
// many blocks are looked at to find that out.
constexpr double kMostChanged = 0.25;
constexpr double kManyStay = 0.1;
constexpr double kSurelyMany = 0.4;
constexpr std::size_t kBlockStride = 8;
// Of a block that is looked at, one part is counted.
constexpr std::size_t kGlanceParts = 8;
constexpr std::size_t kPartElements = kBlockElements / kGlanceParts;
// What it takes to list an element, and to place and code a rare change, in the same unit. Where more changes, time is
// worth more: listed elements are quicker to read than events.
constexpr double kListCost = 1;
constexpr double kEventCost = 16;
constexpr double kFrequentEventCost = 32;
constexpr double kFrequent = 0.03;  // of the elements
// Up to so many listed elements are coded one by one: 32 lanes would take 64 bytes more.
constexpr std::size_t kMostPaired = 6144;
// Below so many bits a change, steps need not be weighed against tables: a direction takes one.
constexpr double kStepBits = 1.5;

namespace choice {

// How many elements may have changed, of a tensor that is not small: `looked` blocks were looked at, of which `stayed`
// are as they were; in parts of them `changed` elements are not.
TEXTNLP_FAST_HD inline std::uint64_t most_changed(std::size_t count, std::size_t looked, std::size_t stayed,
                                                  std::size_t changed) {
  const auto blocks = static_cast<double>(looked);
  const double share_stayed = looked == 0 ? 0 : static_cast<double>(stayed) / blocks;
  const double share_changed = looked == 0 ? 0 : static_cast<double>(changed) / (blocks * kPartElements);
  if (share_stayed > kManyStay) return count;
  if (share_changed > kSurelyMany) return 0;
  return static_cast<std::uint64_t>(kMostChanged * static_cast<double>(count));
}

// Which contexts are listed, by what it takes to tell and to read them and the changes of the others.
TEXTNLP_FAST_HD inline unsigned listed_contexts(const double* changed, const double* all, unsigned contexts,
                                                double event_cost) {
  double cost = 0;
  for (unsigned c = 0; c < contexts; ++c) cost += changed[c] * event_cost;
  double least = cost;
  unsigned listed = 0;
  for (unsigned c = 0; c < contexts; ++c) {
    cost += all[c] * kListCost - changed[c] * event_cost;
    if (cost < least) {
      least = cost;
      listed = c + 1;
    }
  }
  return listed;
}

// Hazards in proportion to the chance of a change, the likeliest at the top.
TEXTNLP_FAST_HD_CALL void hazard_codes(const double* changed, const double* all, unsigned contexts, Split& split) {
  constexpr double kScale = 1 << 20;
  double logs[kMaxContexts];
  double most = -64;
  for (unsigned c = split.listed; c < contexts; ++c) {
    logs[c] = -64;
    if (changed[c] == 0) continue;
    logs[c] =
        log2_of(static_cast<std::uint64_t>(changed[c] * kScale)) - log2_of(static_cast<std::uint64_t>(all[c] * kScale));
    most = logs[c] > most ? logs[c] : most;
  }
  for (unsigned c = 0; c < kMaxContexts; ++c) split.codes[c] = 0;
  for (unsigned c = split.listed; c < contexts; ++c) {
    if (changed[c] == 0) continue;
    const double below = 2 * (most - logs[c]);
    split.codes[c] = static_cast<std::uint8_t>(
        below > kHazardCodes - 2 ? 1 : kHazardCodes - 1 - static_cast<unsigned>(lround(below)));
  }
}

// Chooses the contexts (first and number) and the split.
TEXTNLP_FAST_HD_CALL void choose_split(const SparseSurvey& survey, DeltaRule& rule, Split& split) {
  const unsigned mask = rule.element.context_mask;
  unsigned highest = 0;
  unsigned lowest = mask;
  double elements = 0;
  for (unsigned field = 0; field <= mask; ++field) {
    if (survey.changed_by_field[field] != 0) highest = field;
    if (field < lowest && (survey.changed_by_field[field] | survey.sampled[field]) != 0) lowest = field;
    elements += survey.sampled[field];
  }
  const unsigned first = lowest < highest ? lowest : highest;
  const unsigned least = highest >= kMaxContexts - 1 ? highest - (kMaxContexts - 1) : 0;
  rule.context_base = first > least ? first : least;
  rule.contexts = highest - rule.context_base + 1;
  double changed[kMaxContexts] = {};
  double all[kMaxContexts] = {};
  for (unsigned field = lowest; field <= highest; ++field) {
    const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
    changed[context] += survey.changed_by_field[field];
    all[context] += survey.sampled[field];
  }
  for (unsigned c = 0; c < rule.contexts; ++c) all[c] = all[c] > changed[c] ? all[c] : changed[c];
  const bool frequent = static_cast<double>(survey.changed) > kFrequent * elements;
  split.listed = listed_contexts(changed, all, rule.contexts, frequent ? kFrequentEventCost : kEventCost);
  hazard_codes(changed, all, rule.contexts, split);
}

TEXTNLP_FAST_HD inline bool has_hazards(const SparseRule& rule) {
  bool any = false;
  for (unsigned c = 0; c < rule.contexts; ++c) any = any || rule.hazards[c] != 0;
  return any;
}

TEXTNLP_FAST_HD_CALL void put_split(Sink& out, const DeltaRule& rule, const Split& split) {
  out.varint(rule.context_base);
  out.byte(static_cast<std::uint8_t>(rule.contexts));
  out.byte(static_cast<std::uint8_t>(split.listed));
  BitWriter bits(out);
  for (unsigned c = split.listed; c < rule.contexts; ++c) bits.put(split.codes[c], kHazardCodeBits);
  bits.finish();
}

}  // namespace choice
}  // namespace textnlp_fast

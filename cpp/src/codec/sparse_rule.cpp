#include "codec/sparse_rule.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codec/codec_scalar.h"
#include "codec/delta_model.h"
#include "codec/places.h"
#include "codec/tables.h"

namespace textnlp_fast {
namespace {

// Above this share of changed elements a delta frame is quicker and hardly larger, unless many blocks stay: every so
// many blocks are looked at to find that out.
constexpr double kMostChanged = 0.25;
constexpr double kManyStay = 0.1;
constexpr double kSurelyMany = 0.4;
constexpr std::size_t kBlockStride = 8;
// What it takes to list an element, and to place and code a rare change, in the same unit. Where more changes, time is
// worth more: listed elements are quicker to read than events.
constexpr double kListCost = 1;
constexpr double kEventCost = 16;
constexpr double kFrequentEventCost = 32;
constexpr double kFrequent = 0.03;  // of the elements

// What a sample of blocks shows.
struct Glance {
  double stayed;   // share of the blocks without a change
  double changed;  // share of the elements that changed, by an eighth of each block
};

template <class U>
std::size_t count_unequal(const std::uint8_t* target, const std::uint8_t* base, std::size_t count) {
  std::size_t changed = 0;
  for (std::size_t i = 0; i < count; ++i) changed += scalar::load<U>(target, i) != scalar::load<U>(base, i) ? 1 : 0;
  return changed;
}

std::size_t count_changed(const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                          unsigned element_bytes) {
  switch (element_bytes) {
    case 1: return count_unequal<std::uint8_t>(target, base, count);
    case 2: return count_unequal<std::uint16_t>(target, base, count);
    case 4: return count_unequal<std::uint32_t>(target, base, count);
    default: return count_unequal<std::uint64_t>(target, base, count);
  }
}

Glance glance(const std::uint8_t* target, const std::uint8_t* base, std::size_t size, unsigned element_bytes) {
  constexpr std::size_t kParts = 8;
  constexpr std::size_t kPartElements = kBlockElements / kParts;
  const std::size_t block = kBlockElements * element_bytes;
  const std::size_t part = kPartElements * element_bytes;
  std::size_t looked = 0;
  std::size_t stayed = 0;
  std::size_t changed = 0;
  for (std::size_t at = 0; at + block <= size; at += block * kBlockStride, ++looked) {
    if (std::memcmp(target + at, base + at, block) == 0) {
      ++stayed;
    } else {
      const std::size_t from = at + looked % kParts * part;
      changed += count_changed(target + from, base + from, kPartElements, element_bytes);
    }
  }
  if (looked == 0) return {0, 0};
  const auto blocks = static_cast<double>(looked);
  return {static_cast<double>(stayed) / blocks, static_cast<double>(changed) / (blocks * kPartElements)};
}

}  // namespace

std::uint64_t most_changed(const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                           unsigned element_bytes) {
  const std::size_t count = size / element_bytes;
  if (count <= kSmallTensor) return count;
  const Glance seen = glance(target, base, size, element_bytes);
  if (seen.stayed > kManyStay) return count;
  if (seen.changed > kSurelyMany) return 0;
  return static_cast<std::uint64_t>(kMostChanged * static_cast<double>(count));
}

void choose_split(const SparseSurvey& survey, DeltaRule& rule, Split& split) {
  unsigned highest = 0;
  unsigned lowest = rule.element.context_mask;
  for (unsigned field = 0; field <= rule.element.context_mask; ++field) {
    if (survey.changed_by_field[field] != 0) highest = field;
    if (field < lowest && (survey.changed_by_field[field] | survey.sampled[field]) != 0) lowest = field;
  }
  rule.context_base =
      std::max(std::min(lowest, highest), highest >= kMaxContexts - 1 ? highest - (kMaxContexts - 1) : 0u);
  rule.contexts = highest - rule.context_base + 1;
  double changed[kMaxContexts] = {};
  double all[kMaxContexts] = {};
  for (unsigned field = lowest; field <= highest; ++field) {
    const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
    changed[context] += survey.changed_by_field[field];
    all[context] += survey.sampled[field];
  }
  double elements = 0;
  for (unsigned field = 0; field <= rule.element.context_mask; ++field) elements += survey.sampled[field];
  const bool frequent = static_cast<double>(survey.changed) > kFrequent * elements;
  const double event_cost = frequent ? kFrequentEventCost : kEventCost;
  double cost = 0;
  for (unsigned c = 0; c < rule.contexts; ++c) {
    all[c] = std::max(all[c], changed[c]);
    cost += changed[c] * event_cost;
  }
  double least = cost;
  split.listed = 0;
  for (unsigned c = 0; c < rule.contexts; ++c) {
    cost += all[c] * kListCost - changed[c] * event_cost;
    if (cost < least) {
      least = cost;
      split.listed = c + 1;
    }
  }
  // Hazards in proportion to the chance of a change, the likeliest at the top.
  constexpr double kScale = 1 << 20;
  double logs[kMaxContexts];
  double most = -64;
  for (unsigned c = split.listed; c < rule.contexts; ++c) {
    logs[c] = -64;
    if (changed[c] == 0) continue;
    logs[c] =
        log2_of(static_cast<std::uint64_t>(changed[c] * kScale)) - log2_of(static_cast<std::uint64_t>(all[c] * kScale));
    most = std::max(most, logs[c]);
  }
  std::memset(split.codes, 0, sizeof split.codes);
  for (unsigned c = split.listed; c < rule.contexts; ++c) {
    if (changed[c] == 0) continue;
    const double below = 2 * (most - logs[c]);
    split.codes[c] = static_cast<std::uint8_t>(
        below > kHazardCodes - 2 ? 1 : kHazardCodes - 1 - static_cast<unsigned>(std::lround(below)));
  }
}

bool has_hazards(const SparseRule& rule) {
  return std::any_of(rule.hazards, rule.hazards + rule.contexts, [](std::uint16_t hazard) { return hazard != 0; });
}

void write_split(Sink& out, Telling telling, const DeltaRule& rule, const Split& split) {
  out.byte(static_cast<std::uint8_t>(telling));
  out.varint(rule.context_base);
  out.byte(static_cast<std::uint8_t>(rule.contexts));
  out.byte(static_cast<std::uint8_t>(split.listed));
  BitWriter bits(out);
  for (unsigned c = split.listed; c < rule.contexts; ++c) bits.put(split.codes[c], kHazardCodeBits);
  bits.finish();
}

}  // namespace textnlp_fast

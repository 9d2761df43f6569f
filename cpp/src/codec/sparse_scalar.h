// The kernels of sparse frames in plain C++. Internal linkage, as in codec_scalar.h.
#pragma once
#include "codec/codec_scalar.h"

namespace textnlp_fast {
namespace {
namespace scalar {

// Steps from `begin` on, an element on a step's border; `survey` and `masks` go on from there.
template <class U>
void sparse_survey(const std::uint8_t* target, const std::uint8_t* base, std::size_t begin, std::size_t end,
                   ElementRule rule, std::uint64_t most, std::uint32_t* masks, SparseSurvey& survey) {
  for (std::size_t step = begin; step < end && survey.changed <= most; step += kLanes) {
    const std::size_t lanes = end - step < kLanes ? end - step : kLanes;
    const bool sampled = step / kLanes % kSampleSteps == 0;
    std::uint32_t mask = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const U from = load<U>(base, step + lane);
      const bool changed = load<U>(target, step + lane) != from;
      mask |= static_cast<std::uint32_t>(changed ? 1 : 0) << lane;
      const unsigned field = context_field(from, rule);
      if (changed) ++survey.changed_by_field[field];
      if (sampled) survey.sampled[field] += kSampleSteps;
    }
    masks[step / kLanes] = mask;
    survey.changed += static_cast<unsigned>(__builtin_popcount(mask));
  }
}

inline void sum_columns(SparseBlock& block) {
  std::uint32_t sum = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    block.columns[lane] = sum;
    sum += block.sums[lane];
  }
  block.columns[kLanes] = sum;
}

template <class U>
void sparse_scan(const std::uint8_t* base, std::size_t count, const SparseRule& rule, SparseBlock& block) {
  std::uint16_t sums[kLanes] = {};
  std::size_t at = 0;
  for (unsigned row = 0; row < kBlockRows; ++row) {
    std::memcpy(block.before[row], sums, sizeof sums);
    std::uint32_t listed = 0;
    for (unsigned lane = 0; lane < kLanes && at < count; ++lane, ++at) {
      const unsigned field = context_field(load<U>(base, at), rule.element);
      const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
      listed |= static_cast<std::uint32_t>(context < rule.listed ? 1 : 0) << lane;
      if (context < rule.contexts) sums[lane] = static_cast<std::uint16_t>(sums[lane] + rule.hazards[context]);
    }
    block.listed[row] = listed;
  }
  std::memcpy(block.sums, sums, sizeof sums);
  sum_columns(block);
}

template <class U>
std::size_t sparse_pick(const std::uint8_t* from, const std::uint32_t* masks, unsigned rows, std::uint8_t* packed) {
  std::size_t count = 0;
  for (unsigned row = 0; row < rows; ++row) {
    for (std::uint32_t left = masks[row]; left != 0; left &= left - 1) {
      store<U>(packed, count++, load<U>(from, row * kLanes + static_cast<unsigned>(__builtin_ctz(left))));
    }
  }
  return count;
}

template <class U>
std::size_t sparse_place(const std::uint8_t* packed, const std::uint32_t* masks, unsigned rows, std::uint8_t* to) {
  std::size_t count = 0;
  for (unsigned row = 0; row < rows; ++row) {
    for (std::uint32_t left = masks[row]; left != 0; left &= left - 1) {
      store<U>(to, row * kLanes + static_cast<unsigned>(__builtin_ctz(left)), load<U>(packed, count++));
    }
  }
  return count;
}

}  // namespace scalar
}  // namespace
}  // namespace textnlp_fast

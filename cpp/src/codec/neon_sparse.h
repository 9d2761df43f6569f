// Sparse frames of two-byte elements on NEON: what changed, and the blocks. The rest is portable.
#pragma once
#include "codec/neon_delta.h"
#include "codec/sparse_scalar.h"

namespace textnlp_fast {
namespace {
namespace neon {

void sparse_survey(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                   ElementRule rule, std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey) {
  if (element_size != 2) {
    portable::sparse_survey(element_size, target, base, count, rule, most, masks, survey);
    return;
  }
  __builtin_memset(survey, 0, sizeof *survey);
  const FieldOf field_of(rule);
  const std::size_t steps = count / kLanes;
  for (std::size_t step = 0; step < steps && survey->changed <= most; ++step) {
    const Words from = load_elements(base, step * kLanes);
    const Words to = load_elements(target, step * kLanes);
    std::uint32_t changed = 0;
    std::uint16_t fields[kLanes];
    for (unsigned r = 0; r < kRegisters; ++r) {
      changed |= bits_of(vmvnq_u16(vceqq_u16(to.part[r], from.part[r]))) << (8 * r);
      vst1q_u16(fields + 8 * r, field_of(from.part[r]));
    }
    masks[step] = changed;
    survey->changed += static_cast<unsigned>(__builtin_popcount(changed));
    for (std::uint32_t left = changed; left != 0; left &= left - 1) {
      ++survey->changed_by_field[fields[__builtin_ctz(left)]];
    }
    if (step % kSampleSteps != 0) continue;
    for (const std::uint16_t field : fields) survey->sampled[field] += kSampleSteps;
  }
  scalar::sparse_survey<std::uint16_t>(target, base, steps * kLanes, count, rule, most, masks, *survey);
}

void sparse_scan(unsigned element_size, const std::uint8_t* base, std::size_t count, const SparseRule* rule,
                 SparseBlock* block) {
  if (element_size != 2 || count != kBlockElements || rule->element.context_mask > kMostContextMask) {
    portable::sparse_scan(element_size, base, count, rule, block);
    return;
  }
  const FieldOf field_of(rule->element);
  const uint8x16_t first = vdupq_n_u8(static_cast<std::uint8_t>(rule->context_base));
  const uint8x16_t listed = vdupq_n_u8(static_cast<std::uint8_t>(rule->listed));
  ContextNumbers hazards = {};
  for (unsigned c = 0; c < rule->contexts; ++c) hazards.set(c, rule->hazards[c]);
  Words sums;
  for (unsigned r = 0; r < kRegisters; ++r) sums.part[r] = set16(0);
  for (unsigned row = 0; row < kBlockRows; ++row) {
    const Words from = load_elements(base, row * kLanes);
    Bytes context;
    std::uint32_t bits = 0;
    for (unsigned r = 0; r < 2; ++r) {
      const uint8x16_t field =
          vcombine_u8(vmovn_u16(field_of(from.part[2 * r])), vmovn_u16(field_of(from.part[2 * r + 1])));
      context.part[r] = vqsubq_u8(field, first);
      const uint8x16_t below = vcltq_u8(context.part[r], listed);
      const uint16x8_t low = vreinterpretq_u16_s16(vmovl_s8(vget_low_s8(vreinterpretq_s8_u8(below))));
      const uint16x8_t high = vreinterpretq_u16_s16(vmovl_s8(vget_high_s8(vreinterpretq_s8_u8(below))));
      bits |= bits_of(low) << (16 * r) | bits_of(high) << (16 * r + 8);
    }
    block->listed[row] = bits;
    // A look-up past the tables gives 0, and so does one past the contexts.
    const Words hazard = hazards.find(context);
    for (unsigned r = 0; r < kRegisters; ++r) {
      vst1q_u16(block->before[row] + 8 * r, sums.part[r]);
      sums.part[r] = vaddq_u16(sums.part[r], hazard.part[r]);
    }
  }
  for (unsigned r = 0; r < kRegisters; ++r) vst1q_u16(block->sums + 8 * r, sums.part[r]);
  scalar::sum_columns(*block);
}

}  // namespace neon
}  // namespace
}  // namespace textnlp_fast

// What a sparse frame says of its contexts: which are listed, and how likely the elements of the others change.
#pragma once
#include <cstdint>

#include "codec/bits.h"
#include "codec/codec_kernels.h"
#include "codec/frame.h"
#include "codec/places.h"
#include "codec/table_reading.h"

namespace textnlp_fast {

// How the listed elements are told.
enum class Telling : std::uint8_t { paired = 0, in_lanes = 1, as_steps = 2 };

constexpr std::size_t blocks_of(std::size_t count) { return (count + kBlockElements - 1) / kBlockElements; }

// Whether to look for a sparse code at all: at most so many elements may have changed. All of them where many blocks
// stay as they are or the tensor is small, a part otherwise.
std::uint64_t most_changed(const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                           unsigned element_bytes);

// Which contexts are listed, and codes of the hazards of the others.
struct Split {
  unsigned listed;
  std::uint8_t codes[kMaxContexts];
};

// Chooses the contexts (first and number) and the split, by what it takes to tell and to read.
void choose_split(const SparseSurvey& survey, DeltaRule& rule, Split& split);

TEXTNLP_FAST_HD inline SparseRule sparse_rule(const DeltaRule& rule, const Split& split) {
  SparseRule places = {rule.element, rule.context_base, split.listed, rule.contexts, {}};
  for (unsigned c = split.listed; c < rule.contexts; ++c) places.hazards[c] = hazard_of(split.codes[c]);
  return places;
}

bool has_hazards(const SparseRule& rule);

TEXTNLP_FAST_HD inline bool read_telling(ByteReader& reader, Telling& telling) {
  const unsigned told = reader.byte();
  if (reader.failed || told > static_cast<unsigned>(Telling::as_steps)) return false;
  telling = static_cast<Telling>(told);
  return true;
}

void write_split(Sink& out, const DeltaRule& rule, const Split& split);
// Fills element, context_base and contexts of `rule`; false if what is read is not valid.
TEXTNLP_FAST_HD inline bool read_split(ByteReader& reader, Dtype dtype, DeltaRule& rule, Split& split) {
  rule.element = element_rule(dtype);
  const std::uint64_t context_base = reader.varint();
  rule.contexts = reader.byte();
  const unsigned listed = reader.byte();
  if (reader.failed || context_base > rule.element.context_mask || rule.contexts == 0 || rule.contexts > kMaxContexts ||
      listed > rule.contexts) {
    return false;
  }
  rule.context_base = static_cast<unsigned>(context_base);
  split = {listed, {}};
  BitReader bits(reader.at, static_cast<std::size_t>(reader.end - reader.at));
  for (unsigned c = listed; c < rule.contexts; ++c) {
    split.codes[c] = static_cast<std::uint8_t>(bits.get(kHazardCodeBits));
    if (split.codes[c] >= kHazardCodes) return false;
  }
  return !bits.overrun() && reader.take(bits.bytes()) != nullptr;
}

}  // namespace textnlp_fast

// What a sparse frame says of its contexts: which are listed, and how likely the elements of the others change.
#pragma once
#include <cstdint>

#include "codec/codec_kernels.h"
#include "codec/frame.h"

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

SparseRule sparse_rule(const DeltaRule& rule, const Split& split);
bool has_hazards(const SparseRule& rule);

void write_split(Sink& out, Telling telling, const DeltaRule& rule, const Split& split);
// Fills element, context_base and contexts of `rule`; false if what is read is not valid.
bool read_split(ByteReader& reader, Dtype dtype, Telling& telling, DeltaRule& rule, Split& split);

}  // namespace textnlp_fast

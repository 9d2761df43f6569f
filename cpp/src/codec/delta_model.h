// The tables of delta frames: chosen, written, read and unfolded. Sparse frames code what they list in the same way.
#pragma once
#include <cstdint>
#include <vector>

#include "codec/bits.h"
#include "codec/codec_kernels.h"
#include "codec/delta_choice.h"
#include "codec/frame.h"
#include "codec/table_reading.h"

namespace textnlp_fast {

// One more than the last token that occurs in any context.
unsigned most_tokens(const DeltaModel& model) noexcept;

// Bits that follow the tokens.
double raw_bits(const DeltaModel& model, unsigned tokens) noexcept;

// From counts to shares, contexts that lie side by side sharing a table where that is cheaper.
void choose_tables(DeltaModel& model) noexcept;

// What stands before the tables: table log, token scheme, first field and number of contexts.
void write_rule(Sink& out, const DeltaRule& rule);

// The context codes with their tables, padded to a byte.
void write_tables(Sink& out, const DeltaModel& model);

struct DeltaDecoder {
  DeltaRule rule;
  DeltaDecodeTables tables;
  std::uint16_t freq[kMaxContexts][kMaxTokens];
  std::vector<std::uint32_t> slots;
};

// Reads the tables of decoder.rule, whose other fields stand; false if they are not valid.
bool read_tables(ByteReader& reader, Dtype dtype, DeltaDecoder& decoder);
// Unfolds them: build_starts() without slots, for readers that search.
void build_starts(DeltaDecoder& decoder);
void build_decode_tables(DeltaDecoder& decoder);

}  // namespace textnlp_fast

// The codec kernels that differ by instruction set, and what they work on. Plain structs, no std types: kernel files
// are compiled with their own flags and share no inline code with the rest.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/rans.h"
#include "codec/tokens.h"

namespace textnlp_fast {

constexpr unsigned kMaxContexts = 32;
constexpr unsigned kMaxTokens = kMostTokens;
constexpr unsigned kMaxSegments = 16;
constexpr unsigned kMinTableLog = 8;
constexpr unsigned kMaxTableLog = 15;
// Up to here a decoder may expand a table slot by slot; finer tables are searched.
constexpr unsigned kMaxSlotLog = 12;
// Elements are counted in one step (of kLanes elements) of so many, with that weight.
constexpr unsigned kSampleSteps = 8;

// What both sides of a delta frame know.
struct DeltaRule {
  ElementRule element;
  TokenScheme scheme;
  unsigned table_log;
  unsigned context_base;  // context = clamp(field - context_base, 0, contexts - 1)
  unsigned contexts;
};

constexpr unsigned kMaxContextField = 2047;

using TokenCounts = std::uint32_t[kMaxTokens];

// Sparse frames look at elements in blocks of rows of kLanes.
constexpr unsigned kBlockRows = 16;
constexpr unsigned kBlockElements = kBlockRows * kLanes;

// What both sides of a sparse frame know of the places of its changes.
struct SparseRule {
  ElementRule element;
  unsigned context_base;                // context = field - context_base, at least 0
  unsigned listed;                      // contexts below this are listed
  unsigned contexts;                    // the others up to this one are cold; what lies above never changes
  std::uint16_t hazards[kMaxContexts];  // 0 for listed contexts
};

struct SparseBlock {
  alignas(64) std::uint16_t before[kBlockRows][kLanes];  // summed hazard of a column before each row
  alignas(64) std::uint16_t sums[kLanes];                // and in all
  std::uint32_t columns[kLanes + 1];                     // summed hazard before each column, and in all
  std::uint32_t listed[kBlockRows];                      // lanes of each row
};

struct SparseSurvey {
  std::uint64_t changed;  // elements
  // By context field, exact and sampled. The latter in steps of kSampleSteps, with that weight.
  std::uint32_t changed_by_field[kMaxContextField + 1];
  std::uint32_t sampled[kMaxContextField + 1];
};

// A stretch of a frame with lanes and words of its own.
struct SegmentInput {
  const std::uint8_t* words;  // 16-bit little-endian
  const std::uint8_t* end;
  std::uint32_t states[kLanes];
  std::size_t begin;  // elements
  std::size_t count;
};

struct SegmentOutput {
  std::uint16_t* words;  // written downwards from here; on return the first word
  std::uint32_t states[kLanes];
  std::size_t begin;  // elements
  std::size_t count;
};

struct DeltaEncodeTables {
  EncodeSymbol symbols[kMaxContexts][kMaxTokens];
};

struct DeltaDecodeTables {
  std::uint16_t zero_freq[kMaxContexts];                   // share of token 0
  std::uint16_t cumulative[kMaxContexts][kMaxTokens + 1];  // start of each token; 2^table_log from the last one on
  const std::uint32_t* slots;                              // [context << table_log | slot]: slot_entry(); null if finer
  unsigned tokens;                                         // tokens in use, over all contexts
};

// What a slot stands for, in two halves for vector kernels that work on 16-bit lanes: freq - 1 and the low bits of the
// symbol below, the offset in the symbol's share and the high bits above.
constexpr std::uint32_t slot_entry(std::uint32_t symbol, std::uint32_t freq, std::uint32_t offset) {
  return (freq - 1) | (symbol & 15) << 12 | offset << 16 | (symbol >> 4) << 28;
}
constexpr std::uint32_t entry_freq(std::uint32_t entry) { return (entry & 0xfff) + 1; }
constexpr std::uint32_t entry_offset(std::uint32_t entry) { return (entry >> 16) & 0xfff; }
constexpr std::uint32_t entry_symbol(std::uint32_t entry) { return ((entry >> 12) & 15) | (entry >> 28) << 4; }

struct ByteDecodeTable {
  std::uint16_t freq[256];
  std::uint16_t start[256];
  const std::uint32_t* slots;  // [slot]: slot_entry()
  unsigned table_log;          // slot_entry() holds shares up to 4096
};

struct CodecKernels {
  const char* name;

  // Fills in the contexts of *rule, whose other fields stand, and adds to counts[context][token].
  void (*delta_count)(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                      DeltaRule* rule, TokenCounts* counts);
  // Adds to counts[context][token].
  void (*delta_histogram)(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base,
                          std::size_t count, const DeltaRule* rule, TokenCounts* counts);
  // Encodes all segments of a frame, whose tables stand.
  void (*delta_encode)(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base,
                       const DeltaRule* rule, const DeltaEncodeTables* tables, SegmentOutput* segments,
                       unsigned segment_count);
  // False if a stream ran over or did not end in its start state.
  bool (*delta_decode)(unsigned element_size, SegmentInput* segments, unsigned segment_count, const DeltaRule* rule,
                       const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out);

  // Finds what changed: a mask of lanes a step, the last one filled up with 0. Stops where `most` are passed.
  void (*sparse_survey)(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                        ElementRule rule, std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey);
  // `count` elements, at most kBlockElements; what lies behind them is neither listed nor has it a hazard.
  void (*sparse_scan)(unsigned element_size, const std::uint8_t* base, std::size_t count, const SparseRule* rule,
                      SparseBlock* block);
  // Lists the lanes in the masks of `rows` rows, as places in the block, and returns their number. May write kLanes
  // numbers more.
  unsigned (*sparse_list)(const std::uint32_t* masks, unsigned rows, std::uint16_t* places);
  // Packs the elements in the masks of `rows` rows and returns their number. May write 64 bytes more.
  std::size_t (*sparse_pick)(unsigned element_size, const std::uint8_t* from, const std::uint32_t* masks, unsigned rows,
                             std::uint8_t* packed);
  // The way back: returns the number taken. May read 64 bytes more, and write whole rows as they were.
  std::size_t (*sparse_place)(unsigned element_size, const std::uint8_t* packed, const std::uint32_t* masks,
                              unsigned rows, std::uint8_t* to);

  // Outcomes of a step (steps_scalar.h): `up` and `down`, a word an element; of all types with two-byte words but the
  // first. Directions are a bit for each element that can move; up to eight bytes past the last are written or read.
  void (*bf16_steps)(const std::uint8_t* base, std::size_t count, float size, std::uint8_t* up, std::uint8_t* down);
  // How many elements can move.
  std::size_t (*steps_count)(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                             std::size_t count);
  // Directions, and in odd[], a bit an element, which are neither outcome. Returns how many elements can move.
  std::size_t (*steps_tell)(const std::uint8_t* target, const std::uint8_t* base, const std::uint8_t* up,
                            const std::uint8_t* down, std::size_t count, std::uint32_t* odd, std::uint8_t* directions);
  void (*steps_take)(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                     const std::uint8_t* directions, std::size_t count, std::uint8_t* target);

  // Byte planes: planes[p][i] is byte p, from the top, of element i, rotated left by one where `rotate` (which brings
  // the exponent of a bfloat16 or float32 into one byte).
  void (*split_planes)(unsigned element_size, bool rotate, const std::uint8_t* data, std::size_t count,
                       std::uint8_t* const* planes);
  void (*merge_planes)(unsigned element_size, bool rotate, const std::uint8_t* const* planes, std::size_t count,
                       std::uint8_t* data);
  void (*byte_histogram)(const std::uint8_t* data, std::size_t count, std::uint32_t* counts);
  // Sets seen[b] to 1 for every byte b that occurs; few should be new.
  void (*byte_presence)(const std::uint8_t* data, std::size_t count, std::uint8_t* seen);
  void (*bytes_encode)(const std::uint8_t* data, const EncodeSymbol* symbols, unsigned table_log,
                       SegmentOutput* segments, unsigned segment_count);
  bool (*bytes_decode)(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable* table, std::uint8_t* out);
  // bytes_decode of the upper plane and merge_planes with the lower one of two-byte elements, in one pass.
  bool (*bytes_decode_merge2)(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable* table, bool rotate,
                              const std::uint8_t* lower, std::uint8_t* out);
};

// The portable kernels by name: other sets fall back on them.
namespace portable {
void sparse_survey(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                   ElementRule rule, std::uint64_t most, std::uint32_t* masks, SparseSurvey* survey);
void sparse_scan(unsigned element_size, const std::uint8_t* base, std::size_t count, const SparseRule* rule,
                 SparseBlock* block);
unsigned sparse_list(const std::uint32_t* masks, unsigned rows, std::uint16_t* places);
std::size_t sparse_pick(unsigned element_size, const std::uint8_t* from, const std::uint32_t* masks, unsigned rows,
                        std::uint8_t* packed);
std::size_t sparse_place(unsigned element_size, const std::uint8_t* packed, const std::uint32_t* masks, unsigned rows,
                         std::uint8_t* to);
unsigned max_field(unsigned element_size, const std::uint8_t* base, std::size_t count, ElementRule rule);
void delta_count(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                 DeltaRule* rule, TokenCounts* counts);
void delta_histogram(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                     const DeltaRule* rule, TokenCounts* counts);
void delta_encode(unsigned element_size, const std::uint8_t* target, const std::uint8_t* base, const DeltaRule* rule,
                  const DeltaEncodeTables* tables, SegmentOutput* segments, unsigned segment_count);
bool delta_decode(unsigned element_size, SegmentInput* segments, unsigned segment_count, const DeltaRule* rule,
                  const DeltaDecodeTables* tables, const std::uint8_t* base, std::uint8_t* out);
void bf16_steps(const std::uint8_t* base, std::size_t count, float size, std::uint8_t* up, std::uint8_t* down);
std::size_t steps_count(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down, std::size_t count);
std::size_t steps_tell(const std::uint8_t* target, const std::uint8_t* base, const std::uint8_t* up,
                       const std::uint8_t* down, std::size_t count, std::uint32_t* odd, std::uint8_t* directions);
void steps_take(const std::uint8_t* base, const std::uint8_t* up, const std::uint8_t* down,
                const std::uint8_t* directions, std::size_t count, std::uint8_t* target);
void split_planes(unsigned element_size, bool rotate, const std::uint8_t* data, std::size_t count,
                  std::uint8_t* const* planes);
void merge_planes(unsigned element_size, bool rotate, const std::uint8_t* const* planes, std::size_t count,
                  std::uint8_t* data);
void byte_histogram(const std::uint8_t* data, std::size_t count, std::uint32_t* counts);
void byte_presence(const std::uint8_t* data, std::size_t count, std::uint8_t* seen);
void bytes_encode(const std::uint8_t* data, const EncodeSymbol* symbols, unsigned table_log, SegmentOutput* segments,
                  unsigned segment_count);
bool bytes_decode(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable* table, std::uint8_t* out);
bool bytes_decode_merge2(SegmentInput* segments, unsigned segment_count, const ByteDecodeTable* table, bool rotate,
                         const std::uint8_t* lower, std::uint8_t* out);
}  // namespace portable

extern const CodecKernels codec_kernels_portable;
extern const CodecKernels codec_kernels_avx2;
extern const CodecKernels codec_kernels_avx512;
extern const CodecKernels codec_kernels_avx512_gather;
extern const CodecKernels codec_kernels_neon;

}  // namespace textnlp_fast

// Delta frames: the residual to the base, in ULPs, under the table that the base's exponent picks.
#include <algorithm>
#include <cstring>
#include <memory>

#include "codec/frame.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

// Below this share of changed elements a frame is sparse: finer shares, one segment.
constexpr double kSparseShare = 0.2;
constexpr unsigned kSparseTableLog = 15;
constexpr unsigned kDenseTableLog = 10;
// Vector kernels keep up to 64 tokens in registers.
constexpr unsigned kVectorTokens = 64;

enum ContextCode : unsigned { kZeroOnly = 0, kAsBefore = 1, kOwnTable = 2 };

ElementRule element_rule(Dtype dtype) {
  const unsigned exponent = exponent_bits(dtype);
  const auto bits = static_cast<unsigned>(element_size(dtype) * 8);
  if (exponent == 0) return {false, bits - 1, 0};
  return {true, bits - 1 - exponent, (1u << exponent) - 1};
}

TokenScheme dense_scheme(std::size_t element_bytes) {
  switch (element_bytes) {
    case 1: return {16, 1};
    case 2: return {3, 1};
    case 4: return {0, 1};
    default: return {0, 0};
  }
}

TokenScheme sparse_scheme(std::size_t element_bytes) {
  return element_bytes == 2 ? TokenScheme{3, 0} : dense_scheme(element_bytes);
}

// The tables of a frame while they are made: counts by context, then shares, neighbours with like shares sharing one.
struct Model {
  DeltaRule rule;
  TokenCounts counts[kMaxContexts];
  std::uint16_t freq[kMaxContexts][kMaxTokens];
  unsigned symbols[kMaxContexts];
  unsigned code[kMaxContexts];
  double bits;  // of everything but the fixed parts
};

unsigned used_symbols(const std::uint32_t* counts) {
  unsigned symbols = kMaxTokens;
  while (symbols > 1 && counts[symbols - 1] == 0) --symbols;
  return symbols;
}

// Cost of coding `counts` with a table of their own, table included; fills freq and symbols.
double own_cost(const TokenCounts& counts, unsigned table_log, std::uint16_t* freq, unsigned* symbols) {
  *symbols = used_symbols(counts);
  if (*symbols == 1) {
    std::memset(freq, 0, kMaxTokens * sizeof *freq);
    freq[0] = static_cast<std::uint16_t>(1u << table_log);
    return 0;
  }
  std::memset(freq, 0, kMaxTokens * sizeof *freq);
  normalise(counts, *symbols, table_log, freq);
  return coded_bits(counts, freq, *symbols, table_log) + estimated_table_bits(freq, *symbols);
}

// Left to right: a context joins the group before it when one table for both costs less than two.
void choose_tables(Model& model) {
  const unsigned contexts = model.rule.contexts;
  const unsigned log = model.rule.table_log;
  unsigned group = 0;  // first context of the open group; its counts are the group's
  double group_cost = own_cost(model.counts[0], log, model.freq[0], &model.symbols[0]);
  double total = 0;
  auto close = [&](unsigned until) {
    total += group_cost;
    model.code[group] = model.symbols[group] == 1 ? kZeroOnly : kOwnTable;
    for (unsigned c = group + 1; c < until; ++c) {
      model.code[c] = kAsBefore;
      std::memcpy(model.freq[c], model.freq[group], sizeof model.freq[c]);
      model.symbols[c] = model.symbols[group];
    }
  };
  for (unsigned c = 1; c < contexts; ++c) {
    const double alone = own_cost(model.counts[c], log, model.freq[c], &model.symbols[c]);
    const bool quiet = model.symbols[c] == 1;
    if (quiet != (model.symbols[group] == 1)) {
      // One where nothing changes costs nothing by itself.
      close(c);
      group = c;
      group_cost = alone;
      continue;
    }
    TokenCounts joined;
    for (unsigned t = 0; t < kMaxTokens; ++t) joined[t] = model.counts[group][t] + model.counts[c][t];
    std::uint16_t freq[kMaxTokens];
    unsigned symbols;
    const double together = own_cost(joined, log, freq, &symbols);
    if (together <= group_cost + alone) {
      std::memcpy(model.counts[group], joined, sizeof joined);
      std::memcpy(model.freq[group], freq, sizeof freq);
      model.symbols[group] = symbols;
      group_cost = together;
    } else {
      close(c);
      group = c;
      group_cost = alone;
    }
  }
  close(contexts);
  model.bits = total + 2.0 * contexts;
}

double raw_bits(const Model& model, unsigned tokens) {
  std::uint64_t bits = 0;
  for (unsigned t = 2 * model.rule.scheme.direct + 1; t < tokens; ++t) {
    std::uint64_t count = 0;
    for (unsigned c = 0; c < model.rule.contexts; ++c) count += model.counts[c][t];
    bits += count * raw_bits_of(t, model.rule.scheme);
  }
  return static_cast<double>(bits);
}

// Room for the changed elements of a sparse frame, kept between calls of a thread.
struct SparseScratch {
  std::vector<std::uint16_t> numbers;
  std::vector<std::uint32_t> masks;

  SparseWork prepare(std::size_t count) {
    constexpr std::size_t kSlack = 64;
    const auto capacity = static_cast<std::size_t>(kSparseShare * static_cast<double>(count)) + kLanes;
    const std::size_t stride = capacity + kSlack;
    if (numbers.size() < 4 * stride) numbers.resize(4 * stride);
    const std::size_t steps = count / kLanes;
    const std::size_t lane_words = stride / kLanes + 2;
    if (masks.size() < steps + lane_words) masks.resize(steps + lane_words);
    std::uint16_t* const at = numbers.data();
    return {at, at + stride, at + 2 * stride, at + 3 * stride, masks.data(), masks.data() + steps, capacity, 0, false};
  }
};

void count_tokens(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* target,
                  const std::uint8_t* base, std::size_t count, const DeltaSurvey& survey, SparseWork* work,
                  Model& model) {
  const DeltaRule& rule = model.rule;
  std::memset(model.counts, 0, sizeof model.counts);
  kernel.delta_histogram(element_bytes, target, base, count, &rule, work, model.counts);
  if (work == nullptr) return;
  // Only the changed elements were counted; the unchanged ones were sampled, and no context is left without a share.
  for (unsigned field = 0; field <= survey.max_context; ++field) {
    const unsigned above = field > rule.context_base ? field - rule.context_base : 0;
    model.counts[std::min(above, rule.contexts - 1)][0] += survey.unchanged[field];
  }
  for (unsigned c = 0; c < rule.contexts; ++c) model.counts[c][0] = std::max(model.counts[c][0], 1u);
}

unsigned most_tokens(const Model& model) {
  unsigned most = 1;
  for (unsigned c = 0; c < model.rule.contexts; ++c) most = std::max(most, used_symbols(model.counts[c]));
  return most;
}

void write_model(Sink& out, const Model& model) {
  out.byte(static_cast<std::uint8_t>(model.rule.table_log));
  out.byte(static_cast<std::uint8_t>(model.rule.scheme.direct << 2 | model.rule.scheme.mantissa));
  out.varint(model.rule.context_base);
  out.byte(static_cast<std::uint8_t>(model.rule.contexts));
  BitWriter bits(out);
  for (unsigned c = 0; c < model.rule.contexts; ++c) {
    bits.put(model.code[c], 2);
    if (model.code[c] == kOwnTable) write_table(bits, model.freq[c], model.symbols[c]);
  }
  bits.finish();
}

struct Decoder {
  DeltaRule rule;
  DeltaDecodeTables tables;
  std::uint16_t freq[kMaxContexts][kMaxTokens];
  std::vector<std::uint32_t> slots;
};

bool read_model(ByteReader& reader, Dtype dtype, Decoder& decoder) {
  DeltaRule& rule = decoder.rule;
  const auto bits_an_element = static_cast<unsigned>(element_size(dtype) * 8);
  rule.element = element_rule(dtype);
  rule.table_log = reader.byte();
  const unsigned scheme = reader.byte();
  rule.scheme = {scheme >> 2, scheme & 3};
  const std::uint64_t context_base = reader.varint();
  rule.contexts = reader.byte();
  if (reader.failed || rule.table_log < kMinTableLog || rule.table_log > kMaxTableLog || rule.contexts == 0 ||
      rule.contexts > kMaxContexts || context_base > rule.element.context_mask) {
    return false;
  }
  rule.context_base = static_cast<unsigned>(context_base);
  const unsigned limit = token_limit(rule.scheme, bits_an_element);
  BitReader bits(reader.at, static_cast<std::size_t>(reader.end - reader.at));
  std::memset(decoder.freq, 0, sizeof decoder.freq);
  for (unsigned c = 0; c < rule.contexts; ++c) {
    const unsigned code = bits.get(2);
    if (code == kZeroOnly) {
      decoder.freq[c][0] = static_cast<std::uint16_t>(1u << rule.table_log);
    } else if (code == kAsBefore && c > 0) {
      std::memcpy(decoder.freq[c], decoder.freq[c - 1], sizeof decoder.freq[c]);
    } else if (code != kOwnTable || !read_table(bits, decoder.freq[c], limit, rule.table_log)) {
      return false;
    }
  }
  return !bits.overrun() && reader.take(bits.bytes()) != nullptr;
}

void build_decode_tables(Decoder& decoder) {
  const unsigned log = decoder.rule.table_log;
  decoder.tables.slots = nullptr;
  decoder.tables.tokens = 1;
  if (log <= kMaxSlotLog) {
    const std::size_t needed = static_cast<std::size_t>(decoder.rule.contexts) << log;
    if (decoder.slots.size() < needed) decoder.slots.resize(needed);
    decoder.tables.slots = decoder.slots.data();
  }
  for (unsigned c = 0; c < decoder.rule.contexts; ++c) {
    const std::uint16_t* const freq = decoder.freq[c];
    decoder.tables.zero_freq[c] = freq[0];
    std::uint32_t start = 0;
    for (unsigned t = 0; t < kMaxTokens; ++t) {
      decoder.tables.cumulative[c][t] = static_cast<std::uint16_t>(start);
      start += freq[t];
      if (freq[t] != 0) decoder.tables.tokens = std::max(decoder.tables.tokens, t + 1);
    }
    decoder.tables.cumulative[c][kMaxTokens] = static_cast<std::uint16_t>(start);
    if (log <= kMaxSlotLog) build_slots(freq, kMaxTokens, decoder.slots.data() + (static_cast<std::size_t>(c) << log));
  }
}

}  // namespace

bool encode_delta(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                  std::size_t limit, Sink& out) {
  struct Scratch {
    Model model;
    DeltaSurvey survey;
    DeltaEncodeTables tables;
    SparseScratch sparse;
    SegmentWriter writer;
  };
  thread_local auto scratch = std::make_unique<Scratch>();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  Model& model = scratch->model;
  DeltaRule& rule = model.rule;
  const DeltaSurvey& survey = scratch->survey;

  rule.element = element_rule(dtype);
  SparseWork packed = scratch->sparse.prepare(count);
  kernel.delta_survey(element_bytes, target, base, count, rule.element, &packed, &scratch->survey);
  const bool sparse = static_cast<double>(survey.changed) < kSparseShare * static_cast<double>(count);
  SparseWork* const work = sparse ? &packed : nullptr;
  rule.context_base = survey.max_context >= kMaxContexts ? survey.max_context - (kMaxContexts - 1) : 0;
  rule.contexts = survey.max_context - rule.context_base + 1;
  rule.table_log = sparse ? kSparseTableLog : kDenseTableLog;
  rule.scheme = sparse ? sparse_scheme(element_bytes) : dense_scheme(element_bytes);
  count_tokens(kernel, element_bytes, target, base, count, survey, work, model);
  unsigned tokens = most_tokens(model);
  if (element_bytes <= 2 && tokens > kVectorTokens) {
    rule.scheme = dense_scheme(element_bytes);
    count_tokens(kernel, element_bytes, target, base, count, survey, work, model);
    tokens = most_tokens(model);
  }
  const double raw = raw_bits(model, tokens);
  choose_tables(model);
  const double body = (model.bits + raw) / 8;
  const unsigned segments = choose_segments(count, body);
  if (body + static_cast<double>(segments * (sizeof(std::uint32_t) * kLanes + 4)) + 8 >= static_cast<double>(limit))
    return false;

  write_model(out, model);
  for (unsigned c = 0; c < rule.contexts; ++c) {
    build_encode_symbols(model.freq[c], tokens, scratch->tables.symbols[c]);
  }
  const std::size_t words_an_element = 1 + (element_bytes * 8 + 15) / 16;
  SegmentOutput* const outputs = scratch->writer.prepare(count, segments, words_an_element);
  kernel.delta_encode(element_bytes, target, base, &rule, &scratch->tables, work, outputs, segments);
  scratch->writer.write(out);
  return !out.full() && out.size() < limit;
}

bool decode_delta(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size) {
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  thread_local auto decoder_owner = std::make_unique<Decoder>();
  Decoder& decoder = *decoder_owner;
  SegmentInput segments[kMaxSegments];
  unsigned segment_count = 0;
  if (!read_model(reader, dtype, decoder) || !read_segments(reader, count, segments, &segment_count)) return false;
  if (reader.at != reader.end) return false;
  build_decode_tables(decoder);
  return kernels().codec->delta_decode(element_bytes, segments, segment_count, &decoder.rule, &decoder.tables, base,
                                       out);
}

}  // namespace textnlp_fast

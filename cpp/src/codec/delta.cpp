// Delta frames: the residual to the base, in ULPs, under the table that the base's exponent picks.
#include <algorithm>
#include <cstring>
#include <memory>

#include "codec/delta_model.h"
#include "codec/frame.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

// Below this share of changed elements a frame is sparse: finer shares, one segment.
constexpr double kSparseShare = 0.2;
constexpr unsigned kSparseTableLog = 15;
constexpr unsigned kDenseTableLog = 10;

TokenScheme sparse_scheme(std::size_t element_bytes) {
  return element_bytes == 2 ? TokenScheme{3, 0} : dense_scheme(element_bytes);
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
                  DeltaModel& model) {
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

}  // namespace

bool encode_delta(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                  std::size_t limit, Sink& out) {
  struct Scratch {
    DeltaModel model;
    DeltaSurvey survey;
    DeltaEncodeTables tables;
    SparseScratch sparse;
    SegmentWriter writer;
  };
  thread_local auto scratch = std::make_unique<Scratch>();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaModel& model = scratch->model;
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
  model.may_be_even = false;
  choose_tables(model);
  const double body = (model.bits + raw) / 8;
  const unsigned segments = choose_segments(count, body);
  if (body + static_cast<double>(segments * (sizeof(std::uint32_t) * kLanes + 4)) + 8 >= static_cast<double>(limit))
    return false;

  write_rule(out, rule);
  write_tables(out, model);
  for (unsigned c = 0; c < rule.contexts; ++c) {
    build_encode_symbols(model.tables[c].freq, tokens, scratch->tables.symbols[c]);
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
  thread_local auto decoder_owner = std::make_unique<DeltaDecoder>();
  DeltaDecoder& decoder = *decoder_owner;
  SegmentInput segments[kMaxSegments];
  unsigned segment_count = 0;
  if (!read_rule(reader, dtype, decoder.rule) || !read_tables(reader, dtype, decoder) || !read_segments(reader, count, segments, &segment_count)) return false;
  if (reader.at != reader.end) return false;
  build_decode_tables(decoder);
  return kernels().codec->delta_decode(element_bytes, segments, segment_count, &decoder.rule, &decoder.tables, base,
                                       out);
}

}  // namespace textnlp_fast

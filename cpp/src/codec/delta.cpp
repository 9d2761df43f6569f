// Delta frames: the residual to the base, in ULPs, under the table that the base's exponent picks.
#include <algorithm>
#include <cstring>
#include <memory>

#include "codec/delta_model.h"
#include "codec/frame.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {

bool encode_delta(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                  std::size_t limit, Sink& out) {
  struct Scratch {
    DeltaModel model;
    DeltaEncodeTables tables;
    SegmentWriter writer;
  };
  thread_local auto scratch = std::make_unique<Scratch>();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaModel& model = scratch->model;
  DeltaRule& rule = model.rule;

  rule.element = element_rule(dtype);
  rule.table_log = kDeltaTableLog;
  rule.scheme = dense_scheme(element_bytes);
  std::memset(model.counts, 0, sizeof model.counts);
  kernel.delta_count(element_bytes, target, base, count, &rule, model.counts);
  const unsigned tokens = most_tokens(model);
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
  kernel.delta_encode(element_bytes, target, base, &rule, &scratch->tables, outputs, segments);
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
  if (!read_rule(reader, dtype, decoder.rule) || !read_tables(reader, dtype, decoder) ||
      !read_segments(reader, count, segments, &segment_count)) {
    return false;
  }
  if (reader.at != reader.end) return false;
  build_decode_tables(decoder);
  return kernels().codec->delta_decode(element_bytes, segments, segment_count, &decoder.rule, &decoder.tables, base,
                                       out);
}

}  // namespace textnlp_fast

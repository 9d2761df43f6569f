// Sparse frames: where the changes are, told apart from what they are.
#include <algorithm>
#include <cstring>
#include <memory>

#include "codec/delta_model.h"
#include "codec/frame.h"
#include "codec/learned.h"
#include "codec/learned_choice.h"
#include "codec/listed.h"
#include "codec/sparse_choice.h"
#include "codec/sparse_rule.h"
#include "codec/steps.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

// From so many on, tables are worth unfolding slot by slot.
constexpr std::size_t kWorthSlots = 1000;

// Kept between calls of a thread.
struct EncodeScratch {
  DeltaModel model;
  SparseSurvey survey;
  DeltaEncodeTables tables;
  Listed listed;
  std::vector<std::uint32_t> changed;
  PairWriter pair;
  SegmentWriter segments;
  Outcomes outcomes;
  Directions directions;
  Signs signs;
};

struct DecodeScratch {
  DeltaDecoder decoder;
  Listed listed;
  Outcomes outcomes;
  std::vector<std::uint8_t> directions;
};

DecodeScratch* decode_scratch() {
  thread_local auto scratch = std::make_unique<DecodeScratch>();
  return scratch.get();
}

// What telling the changes as steps of an optimiser takes, in bits; 0 if they are no such steps. The pair then holds
// them, after the places.
double try_steps(Dtype dtype, EncodeScratch& scratch, float& step) {
  const Listed& listed = scratch.listed;
  if (!has_steps(dtype)) return 0;
  if (step == 0) step = find_step(dtype, listed.target.data(), listed.base.data(), listed.total());
  if (step == 0) return 0;
  scratch.outcomes.work_out(dtype, listed.base.data(), listed.total(), step);
  return write_steps(scratch.pair, dtype, listed.target.data(), listed.base.data(), listed.total(),
                     listed.events.size(), scratch.outcomes, scratch.directions);
}

void tell_steps(float step, const Split& split, EncodeScratch& scratch, Sink& out) {
  out.byte(static_cast<std::uint8_t>(Telling::as_steps));
  write_split(out, scratch.model.rule, split);
  out.bytes(&step, sizeof step);
  scratch.pair.write(out);
  out.bytes(scratch.directions.bytes.data(), scratch.directions.size);
}

// About what the elements take, in bits.
struct ValuesBits {
  double under_tables;  // these included
  double learned;       // 0 if they cannot be
  [[nodiscard]] bool better_learned(std::size_t total) const {
    return choice::better_learned(learned, under_tables, total);
  }
  [[nodiscard]] double least() const { return learned == 0 ? under_tables : std::min(learned, under_tables); }
};

// Chooses tables for the listed elements.
ValuesBits choose_values(unsigned element_bytes, unsigned cold, EncodeScratch& scratch) {
  const Listed& listed = scratch.listed;
  DeltaModel& model = scratch.model;
  DeltaRule& rule = model.rule;
  rule.scheme = dense_scheme(element_bytes);
  rule.table_log = kDeltaTableLog;
  std::memset(model.counts, 0, sizeof model.counts);
  kernels().codec->delta_histogram(element_bytes, listed.target.data(), listed.base.data(), listed.total(), &rule,
                                   model.counts);
  const double raw = raw_bits(model, most_tokens(model));
  const double learned = choice::learned_bits(OneThread{}, model, cold, listed.total(), raw);
  model.may_be_even = true;
  choose_tables(model);
  return {model.bits + raw, learned};
}

void tell_learned(unsigned element_bytes, const Split& split, EncodeScratch& scratch, Sink& out) {
  const DeltaRule& rule = scratch.model.rule;
  write_split(out, rule, split);
  choice::put_scheme(out, rule.scheme);
  put_changes(scratch.pair, element_bytes, rule, split.listed, scratch.listed, scratch.signs);
  scratch.pair.write(out, scratch.signs.held());
  out.bytes(scratch.signs.bytes(), scratch.signs.behind());
}

void tell_values(unsigned element_bytes, const Split& split, double bits, EncodeScratch& scratch, Sink& out) {
  const Listed& listed = scratch.listed;
  const std::size_t total = listed.total();
  const DeltaModel& model = scratch.model;
  const DeltaRule& rule = model.rule;
  const Telling telling = total <= kMostPaired ? Telling::paired : Telling::in_lanes;
  for (unsigned c = 0; c < rule.contexts; ++c) {
    build_encode_symbols(model.tables[c].freq, model.tables[c].symbols, scratch.tables.symbols[c]);
  }
  out.byte(static_cast<std::uint8_t>(telling));
  write_split(out, rule, split);
  out.byte(static_cast<std::uint8_t>(rule.table_log));
  choice::put_scheme(out, rule.scheme);
  write_tables(out, model);
  if (telling == Telling::paired) put_values(scratch.pair, element_bytes, rule, scratch.tables, listed);
  scratch.pair.write(out);
  if (telling == Telling::paired) return;
  const unsigned segments = choose_segments(total, bits / 8);
  SegmentOutput* const outputs = scratch.segments.prepare(total, segments, 1 + (element_bytes * 8 + 15) / 16);
  kernels().codec->delta_encode(element_bytes, listed.target.data(), listed.base.data(), &rule, &scratch.tables,
                                outputs, segments);
  scratch.segments.write(out);
}

bool take_steps(ByteReader& reader, PairReader& pair, Dtype dtype, float step, DecodeScratch& scratch) {
  Listed& listed = scratch.listed;
  const std::size_t total = listed.total();
  scratch.outcomes.work_out(dtype, listed.base.data(), total, step);
  const std::size_t bytes = (count_movable(dtype, listed.base.data(), total, scratch.outcomes) + 7) / 8;
  const std::uint8_t* const directions = reader.take(bytes);
  if (reader.failed) return false;
  // Bytes past the last are looked at.
  if (scratch.directions.size() < bytes + 8) scratch.directions.resize(bytes + 8);
  std::memcpy(scratch.directions.data(), directions, bytes);
  read_steps(pair, dtype, listed.base.data(), listed.target.data(), total, listed.events.size(), scratch.outcomes,
             scratch.directions.data());
  return true;
}

bool take_lanes(ByteReader& reader, unsigned element_bytes, DecodeScratch& scratch) {
  DeltaDecoder& decoder = scratch.decoder;
  Listed& listed = scratch.listed;
  SegmentInput segments[kMaxSegments];
  unsigned count = 0;
  if (!read_segments(reader, listed.total(), segments, &count)) return false;
  build_decode_tables(decoder);
  return kernels().codec->delta_decode(element_bytes, segments, count, &decoder.rule, &decoder.tables,
                                       listed.base.data(), listed.target.data());
}

}  // namespace

bool encode_sparse(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                   std::size_t limit, Sink& out, bool& learned) {
  learned = false;
  thread_local auto scratch = std::make_unique<EncodeScratch>();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaRule& rule = scratch->model.rule;
  rule.element = element_rule(dtype);

  const std::uint64_t most = most_changed(target, base, size, element_bytes);
  if (most == 0) return false;
  const std::size_t rows = blocks_of(count) * kBlockRows;
  if (scratch->changed.size() < rows) scratch->changed.resize(rows);
  kernel.sparse_survey(element_bytes, target, base, count, rule.element, most, scratch->changed.data(),
                       &scratch->survey);
  if (scratch->survey.changed > most) return false;

  Split split;
  choose_split(scratch->survey, rule, split);
  scratch->listed.prepare(count, element_bytes);
  scratch->pair.clear();
  find_places(kernel, element_bytes, target, base, count, sparse_rule(rule, split), scratch->changed.data(),
              scratch->listed, scratch->pair);
  const std::size_t places_only = scratch->pair.size();
  float step = 0;
  const double as_steps = try_steps(dtype, *scratch, step);
  if (as_steps != 0 && as_steps < kStepBits * static_cast<double>(scratch->survey.changed)) {
    tell_steps(step, split, *scratch, out);
    return !out.full() && out.size() < limit;
  }
  scratch->pair.resize(places_only);
  const ValuesBits values = choose_values(element_bytes, split.listed, *scratch);
  const double least = values.least();
  const bool steps = as_steps != 0 && as_steps < least;
  if ((steps ? as_steps : least) / 8 + kPairStateBytes >= static_cast<double>(limit)) return false;
  learned = !steps && values.better_learned(scratch->listed.total());
  if (steps) {
    try_steps(dtype, *scratch, step);
    tell_steps(step, split, *scratch, out);
  } else if (learned) {
    tell_learned(element_bytes, split, *scratch, out);
  } else {
    tell_values(element_bytes, split, values.under_tables, *scratch, out);
  }
  return !out.full() && out.size() < limit;
}

bool decode_sparse(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size) {
  DecodeScratch* const scratch = decode_scratch();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaDecoder& decoder = scratch->decoder;
  Listed& listed = scratch->listed;

  Telling telling;
  Split split;
  float step = 0;
  PairReader pair;
  if (!read_telling(reader, telling) || !read_split(reader, dtype, decoder.rule, split)) return false;
  if (telling == Telling::as_steps ? !read_step(reader, dtype, step)
                                   : !read_coding(reader, dtype, decoder.rule, decoder.freq)) {
    return false;
  }
  if (!open_pair(reader, pair)) return false;
  listed.prepare(count, element_bytes);
  if (!read_places(kernel, element_bytes, base, count, sparse_rule(decoder.rule, split), pair, listed, out)) {
    return false;
  }
  if (listed.total() == 0) return false;
  if (telling == Telling::as_steps) {
    if (!take_steps(reader, pair, dtype, step, *scratch)) return false;
  } else if (telling == Telling::in_lanes) {
    if (!take_lanes(reader, element_bytes, *scratch)) return false;
  } else {
    listed.total() < kWorthSlots ? build_starts(decoder) : build_decode_tables(decoder);
    take_values(pair, element_bytes, decoder, listed);
  }
  if (!pair.finished() || reader.at != reader.end) return false;

  place_targets(kernel, element_bytes, listed, count, out);
  return true;
}

bool decode_learned(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size) {
  DecodeScratch* const scratch = decode_scratch();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaRule& rule = scratch->decoder.rule;
  Listed& listed = scratch->listed;

  Split split;
  PairReader pair;
  if (!read_split(reader, dtype, rule, split)) return false;
  rule.scheme = read_scheme(reader);
  if (reader.failed || !open_pair(reader, pair)) return false;
  listed.prepare(count, element_bytes);
  if (!read_places(kernel, element_bytes, base, count, sparse_rule(rule, split), pair, listed, out)) return false;
  if (listed.total() == 0 || listed.total() > kMostLearned) return false;
  if (!take_changes(pair, reader, element_bytes, rule, split.listed, listed)) return false;
  place_targets(kernel, element_bytes, listed, count, out);
  return true;
}

}  // namespace textnlp_fast

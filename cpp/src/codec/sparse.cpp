// Sparse frames: where the changes are, told apart from what they are.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "codec/codec_scalar.h"
#include "codec/delta_model.h"
#include "codec/frame.h"
#include "codec/places.h"
#include "codec/steps.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

// Above this share of changed elements a delta frame is quicker and hardly larger, unless many blocks stay.
constexpr double kMostChanged = 0.25;
constexpr double kManyStay = 0.1;
// Every so many blocks are looked at to find that out; small tensors are coded in both ways.
constexpr std::size_t kBlockStride = 8;
// What it takes to list an element, and to place and code a rare change, in the same unit: about nanoseconds.
constexpr double kListCost = 1;
constexpr double kEventCost = 10;
// Up to so many listed elements are coded one by one: 32 lanes would take 64 bytes more.
constexpr std::size_t kMostPaired = 12288;
constexpr unsigned kTableLog = 10;
// Steps are worth telling below so many bits a change: a direction takes one.
constexpr double kStepBits = 1.5;
constexpr std::size_t kSlack = 64;
constexpr std::size_t kWorthSlots = 1000;

// How the listed elements are told.
enum Coder : unsigned { kPaired = 0, kInLanes = 1, kAsSteps = 2, kCoders = 3 };

std::size_t blocks_of(std::size_t count) { return (count + kBlockElements - 1) / kBlockElements; }

// The listed elements, then the cold ones that changed.
struct Listed {
  std::vector<std::uint8_t> base;
  std::vector<std::uint8_t> target;
  std::vector<std::uint32_t> masks;
  std::vector<std::uint32_t> events;  // places
  std::size_t count = 0;              // of listed elements

  void prepare(std::size_t elements, unsigned element_bytes) {
    const std::size_t bytes = elements * element_bytes + kSlack;
    if (base.size() < bytes) base.resize(bytes);
    if (target.size() < bytes) target.resize(bytes);
    const std::size_t rows = blocks_of(elements) * kBlockRows;
    if (masks.size() < rows) masks.resize(rows);
    events.clear();
    count = 0;
  }

  [[nodiscard]] std::size_t total() const { return count + events.size(); }
};

// The share of blocks that did not change, by a sample.
double stay_share(const std::uint8_t* target, const std::uint8_t* base, std::size_t size, unsigned element_bytes) {
  const std::size_t block = kBlockElements * element_bytes;
  std::size_t looked = 0;
  std::size_t stayed = 0;
  for (std::size_t at = 0; at + block <= size; at += block * kBlockStride) {
    ++looked;
    stayed += std::memcmp(target + at, base + at, block) == 0 ? 1 : 0;
  }
  return looked == 0 ? 0 : static_cast<double>(stayed) / static_cast<double>(looked);
}

void set_rule(const DeltaRule& rule, unsigned listed, const std::uint8_t* codes, SparseRule& places) {
  places.element = rule.element;
  places.context_base = rule.context_base;
  places.listed = listed;
  places.contexts = rule.contexts;
  std::memset(places.hazards, 0, sizeof places.hazards);
  for (unsigned c = listed; c < rule.contexts; ++c) places.hazards[c] = hazard_of(codes[c]);
}

bool has_hazards(const SparseRule& rule) {
  return std::any_of(rule.hazards, rule.hazards + rule.contexts, [](std::uint16_t hazard) { return hazard != 0; });
}

// Which contexts are listed, and the hazards of the others.
struct Split {
  unsigned listed;
  std::uint8_t codes[kMaxContexts];
};

void choose_split(const SparseSurvey& survey, DeltaRule& rule, Split& split) {
  unsigned highest = 0;
  unsigned lowest = rule.element.context_mask;
  for (unsigned field = 0; field <= rule.element.context_mask; ++field) {
    if (survey.changed_by_field[field] != 0) highest = field;
    if (field < lowest && (survey.changed_by_field[field] | survey.sampled[field]) != 0) lowest = field;
  }
  rule.context_base =
      std::max(std::min(lowest, highest), highest >= kMaxContexts - 1 ? highest - (kMaxContexts - 1) : 0u);
  rule.contexts = highest - rule.context_base + 1;
  double changed[kMaxContexts] = {};
  double all[kMaxContexts] = {};
  for (unsigned field = lowest; field <= highest; ++field) {
    const unsigned context = field > rule.context_base ? field - rule.context_base : 0;
    changed[context] += survey.changed_by_field[field];
    all[context] += survey.sampled[field];
  }
  double cost = 0;
  for (unsigned c = 0; c < rule.contexts; ++c) {
    all[c] = std::max(all[c], changed[c]);
    cost += changed[c] * kEventCost;
  }
  double least = cost;
  split.listed = 0;
  for (unsigned c = 0; c < rule.contexts; ++c) {
    cost += all[c] * kListCost - changed[c] * kEventCost;
    if (cost < least) {
      least = cost;
      split.listed = c + 1;
    }
  }
  // Hazards in proportion to the chance of a change, the likeliest at the top.
  constexpr double kScale = 1 << 20;
  double logs[kMaxContexts];
  double most = -64;
  for (unsigned c = split.listed; c < rule.contexts; ++c) {
    logs[c] = -64;
    if (changed[c] == 0) continue;
    logs[c] =
        log2_of(static_cast<std::uint64_t>(changed[c] * kScale)) - log2_of(static_cast<std::uint64_t>(all[c] * kScale));
    most = std::max(most, logs[c]);
  }
  std::memset(split.codes, 0, sizeof split.codes);
  for (unsigned c = split.listed; c < rule.contexts; ++c) {
    if (changed[c] == 0) continue;
    const double below = 2 * (most - logs[c]);
    split.codes[c] =
        static_cast<std::uint8_t>(below > kHazardCodes - 2 ? 1 : kHazardCodes - 1 - static_cast<unsigned>(below + 0.5));
  }
}

void write_places_rule(Sink& out, Coder coder, const DeltaRule& rule, const Split& split) {
  out.byte(static_cast<std::uint8_t>(coder));
  out.varint(rule.context_base);
  out.byte(static_cast<std::uint8_t>(rule.contexts));
  out.byte(static_cast<std::uint8_t>(split.listed));
  BitWriter bits(out);
  for (unsigned c = split.listed; c < rule.contexts; ++c) bits.put(split.codes[c], kHazardCodeBits);
  bits.finish();
}

bool read_places_rule(ByteReader& reader, Dtype dtype, unsigned& coder, DeltaRule& rule, SparseRule& places) {
  coder = reader.byte();
  rule.element = element_rule(dtype);
  const std::uint64_t context_base = reader.varint();
  rule.contexts = reader.byte();
  const unsigned listed = reader.byte();
  if (reader.failed || coder >= kCoders || context_base > rule.element.context_mask || rule.contexts == 0 ||
      rule.contexts > kMaxContexts || listed > rule.contexts) {
    return false;
  }
  rule.context_base = static_cast<unsigned>(context_base);
  std::uint8_t codes[kMaxContexts] = {};
  BitReader bits(reader.at, static_cast<std::size_t>(reader.end - reader.at));
  for (unsigned c = listed; c < rule.contexts; ++c) {
    codes[c] = static_cast<std::uint8_t>(bits.get(kHazardCodeBits));
    if (codes[c] >= kHazardCodes) return false;
  }
  if (bits.overrun() || reader.take(bits.bytes()) == nullptr) return false;
  set_rule(rule, listed, codes, places);
  return true;
}

bool read_coding(ByteReader& reader, DeltaRule& rule) {
  rule.table_log = reader.byte();
  const unsigned scheme = reader.byte();
  rule.scheme = {scheme >> 2, scheme & 3};
  return !reader.failed && rule.table_log >= kMinTableLog && rule.table_log <= kMaxTableLog;
}

// By columns, then rows, as places are told.
unsigned order_events(const std::uint32_t* masks, std::uint16_t* events) {
  unsigned count = 0;
  for (unsigned row = 0; row < kBlockRows; ++row) {
    for (std::uint32_t left = masks[row]; left != 0; left &= left - 1) {
      const auto lane = static_cast<unsigned>(__builtin_ctz(left));
      unsigned at = count++;
      for (; at > 0 && events[at - 1] % kLanes > lane; --at) events[at] = events[at - 1];
      events[at] = static_cast<std::uint16_t>(row * kLanes + lane);
    }
  }
  return count;
}

void copy_event(const std::uint8_t* from, std::size_t place, unsigned element_bytes, std::vector<std::uint8_t>& to,
                std::size_t at) {
  std::memcpy(to.data() + at * element_bytes, from + place * element_bytes, element_bytes);
}

void find_places(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* target,
                 const std::uint8_t* base, std::size_t count, const SparseRule& rule, const std::uint32_t* changed,
                 Listed& listed, PairWriter& out) {
  PlaceModel model;
  SparseBlock block;
  const bool hazards = has_hazards(rule);
  for (std::size_t at = 0; at < count; at += kBlockElements) {
    const std::size_t here = std::min<std::size_t>(kBlockElements, count - at);
    const auto rows = static_cast<unsigned>((here + kLanes - 1) / kLanes);
    const std::uint32_t* const masks = changed + at / kLanes;
    std::uint32_t any = 0;
    for (unsigned row = 0; row < rows; ++row) any |= masks[row];
    if (rule.listed != 0) write_alive(out, model, any != 0);
    if (rule.listed != 0 && any == 0) continue;
    if (any == 0 && !hazards) continue;
    kernel.sparse_scan(element_bytes, base + at * element_bytes, here, &rule, &block);
    const std::size_t bytes = listed.count * element_bytes;
    kernel.sparse_pick(element_bytes, target + at * element_bytes, block.listed, rows, listed.target.data() + bytes);
    listed.count +=
        kernel.sparse_pick(element_bytes, base + at * element_bytes, block.listed, rows, listed.base.data() + bytes);
    if (block.columns[kLanes] == 0) continue;
    std::uint32_t cold[kBlockRows] = {};
    for (unsigned row = 0; row < rows; ++row) cold[row] = masks[row] & ~block.listed[row];
    std::uint16_t events[kBlockElements];
    const unsigned found = order_events(cold, events);
    write_events(out, model, block, events, found);
    for (unsigned n = 0; n < found; ++n) listed.events.push_back(static_cast<std::uint32_t>(at + events[n]));
  }
}

bool read_places(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* base, std::size_t count,
                 const SparseRule& rule, PairReader& in, Listed& listed) {
  PlaceModel model;
  SparseBlock block;
  const bool hazards = has_hazards(rule);
  for (std::size_t at = 0; at < count; at += kBlockElements) {
    const std::size_t here = std::min<std::size_t>(kBlockElements, count - at);
    const auto rows = static_cast<unsigned>((here + kLanes - 1) / kLanes);
    std::uint32_t* const masks = listed.masks.data() + at / kLanes;
    if (rule.listed != 0 && !read_alive(in, model)) {
      std::memset(masks, 0, rows * sizeof *masks);
      continue;
    }
    kernel.sparse_scan(element_bytes, base + at * element_bytes, here, &rule, &block);
    std::memcpy(masks, block.listed, rows * sizeof *masks);
    listed.count += kernel.sparse_pick(element_bytes, base + at * element_bytes, masks, rows,
                                       listed.base.data() + listed.count * element_bytes);
    if (!hazards || block.columns[kLanes] == 0) continue;
    std::uint16_t events[kBlockElements + 1];
    const unsigned found = read_events(in, model, block, events);
    if (found > kBlockElements || in.overrun) return false;
    for (unsigned n = 0; n < found; ++n) listed.events.push_back(static_cast<std::uint32_t>(at + events[n]));
  }
  return true;
}

template <class U>
void put_values(PairWriter& out, const DeltaModel& model, const DeltaEncodeTables& tables, const Listed& listed) {
  for (std::size_t i = 0; i < listed.total(); ++i) {
    U from;
    U to;
    std::memcpy(&from, listed.base.data() + i * sizeof(U), sizeof(U));
    std::memcpy(&to, listed.target.data() + i * sizeof(U), sizeof(U));
    const DeltaRule& rule = model.rule;
    const Token token = token_of(residual_of(to, from, rule.element.is_float), rule.scheme);
    const EncodeSymbol& symbol = tables.symbols[scalar::context_of(from, rule)][token.token];
    out.put(symbol.start, symbol.freq, rule.table_log);
    for (unsigned done = 0; done < token.raw_bits; done += 16) {
      const unsigned bits = std::min(16u, token.raw_bits - done);
      out.put_bits(static_cast<std::uint32_t>(token.raw >> done) & ((1u << bits) - 1), bits);
    }
  }
}

template <class U>
void take_values(PairReader& from_words, const DeltaDecoder& decoder, Listed& listed) {
  const DeltaRule rule = decoder.rule;
  const unsigned log = rule.table_log;
  const std::uint32_t* const slots = decoder.tables.slots;
  const scalar::TokenMeaning meaning(rule.scheme, decoder.tables.tokens);
  // A copy, for the states to stay in registers.
  PairReader in = from_words;
  for (std::size_t i = 0; i < listed.total(); ++i) {
    const U from = scalar::load<U>(listed.base.data(), i);
    const unsigned context = scalar::context_of(from, rule);
    const std::uint32_t slot = in.slot(log);
    unsigned token = 0;
    if (slots != nullptr) {
      const std::uint32_t entry = slots[static_cast<std::size_t>(context) << log | slot];
      token = entry_symbol(entry);
      in.take(entry_offset(entry), entry_freq(entry), log);
    } else {
      const std::uint16_t* const starts = decoder.tables.cumulative[context];
      token = scalar::find_token(starts, slot);
      in.take(slot - starts[token], static_cast<std::uint32_t>(starts[token + 1] - starts[token]), log);
    }
    std::uint64_t raw = 0;
    for (unsigned done = 0; done < meaning.bits[token]; done += 16) {
      raw |= static_cast<std::uint64_t>(in.bits(std::min(16u, meaning.bits[token] - done))) << done;
    }
    const auto residual = static_cast<U>(meaning.origin[token] + ((raw ^ meaning.sign[token]) - meaning.sign[token]));
    scalar::store<U>(listed.target.data(), i, apply_residual(from, residual, rule.element.is_float));
  }
  from_words = in;
}

// Calls `action` with a zero of the unsigned type of that size.
template <class Action>
void by_size(unsigned element_bytes, const Action& action) {
  switch (element_bytes) {
    case 1: return action(std::uint8_t{0});
    case 2: return action(std::uint16_t{0});
    case 4: return action(std::uint32_t{0});
    default: return action(std::uint64_t{0});
  }
}

}  // namespace

bool encode_sparse(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                   std::size_t limit, Sink& out) {
  struct Scratch {
    DeltaModel model;
    SparseSurvey survey;
    DeltaEncodeTables tables;
    Listed listed;
    std::vector<std::uint32_t> changed;
    PairWriter pair;
    SegmentWriter segments;
    Outcomes outcomes;
    std::vector<std::uint8_t> directions;
  };
  thread_local auto scratch = std::make_unique<Scratch>();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaModel& model = scratch->model;
  DeltaRule& rule = model.rule;
  Listed& listed = scratch->listed;
  rule.element = element_rule(dtype);

  const bool whole = count <= kSmallTensor || stay_share(target, base, size, element_bytes) > kManyStay;
  const auto most = whole ? count : static_cast<std::uint64_t>(kMostChanged * static_cast<double>(count));
  const std::size_t rows = blocks_of(count) * kBlockRows;
  if (scratch->changed.size() < rows) scratch->changed.resize(rows);
  kernel.sparse_survey(element_bytes, target, base, count, rule.element, most, scratch->changed.data(),
                       &scratch->survey);
  if (scratch->survey.changed > most) return false;

  Split split;
  choose_split(scratch->survey, rule, split);
  SparseRule places;
  set_rule(rule, split.listed, split.codes, places);
  listed.prepare(count, element_bytes);
  scratch->pair.clear();
  find_places(kernel, element_bytes, target, base, count, places, scratch->changed.data(), listed, scratch->pair);
  for (std::size_t n = 0; n < listed.events.size(); ++n) {
    copy_event(base, listed.events[n], element_bytes, listed.base, listed.count + n);
    copy_event(target, listed.events[n], element_bytes, listed.target, listed.count + n);
  }

  const std::size_t total = listed.total();
  PairWriter& pair = scratch->pair;
  const float step = has_steps(dtype) ? find_step(dtype, listed.target.data(), listed.base.data(), total) : 0;
  if (step != 0) {
    scratch->outcomes.work_out(dtype, listed.base.data(), total, step);
    const std::size_t places_only = pair.size();
    const double bits = write_steps(pair, dtype, listed.target.data(), listed.base.data(), total, listed.events.size(),
                                    scratch->outcomes, scratch->directions);
    if (bits < kStepBits * static_cast<double>(scratch->survey.changed)) {
      write_places_rule(out, kAsSteps, rule, split);
      out.bytes(&step, sizeof step);
      pair.write(out);
      out.bytes(scratch->directions.data(), scratch->directions.size());
      return !out.full() && out.size() < limit;
    }
    pair.resize(places_only);
  }

  rule.scheme = dense_scheme(element_bytes);
  rule.table_log = kTableLog;
  std::memset(model.counts, 0, sizeof model.counts);
  kernel.delta_histogram(element_bytes, listed.target.data(), listed.base.data(), total, &rule, model.counts);
  const unsigned tokens = most_tokens(model);
  const double raw = raw_bits(model, tokens);
  model.may_be_even = true;
  choose_tables(model);
  const double body = (model.bits + raw) / 8;
  if (body + kPairStateBytes >= static_cast<double>(limit)) return false;
  for (unsigned c = 0; c < rule.contexts; ++c) {
    build_encode_symbols(model.tables[c].freq, tokens, scratch->tables.symbols[c]);
  }
  const Coder coder = total <= kMostPaired ? kPaired : kInLanes;
  write_places_rule(out, coder, rule, split);
  out.byte(static_cast<std::uint8_t>(rule.table_log));
  out.byte(static_cast<std::uint8_t>(rule.scheme.direct << 2 | rule.scheme.mantissa));
  write_tables(out, model);
  if (coder == kPaired) {
    by_size(element_bytes, [&](auto zero) { put_values<decltype(zero)>(pair, model, scratch->tables, listed); });
  }
  pair.write(out);
  if (coder == kInLanes) {
    const unsigned segments = choose_segments(total, body);
    SegmentOutput* const outputs = scratch->segments.prepare(total, segments, 1 + (element_bytes * 8 + 15) / 16);
    kernel.delta_encode(element_bytes, listed.target.data(), listed.base.data(), &rule, &scratch->tables, outputs,
                        segments);
    scratch->segments.write(out);
  }
  return !out.full() && out.size() < limit;
}

bool decode_sparse(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size) {
  struct Scratch {
    DeltaDecoder decoder;
    Listed listed;
    Outcomes outcomes;
    std::vector<std::uint8_t> directions;
  };
  thread_local auto scratch = std::make_unique<Scratch>();
  const auto element_bytes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / element_bytes;
  const CodecKernels& kernel = *kernels().codec;
  DeltaDecoder& decoder = scratch->decoder;
  Listed& listed = scratch->listed;
  const DeltaRule& rule = decoder.rule;
  unsigned coder = 0;
  SparseRule places;
  if (!read_places_rule(reader, dtype, coder, decoder.rule, places)) return false;
  float step = 0;
  if (coder == kAsSteps) {
    const std::uint8_t* const size_bytes = reader.take(sizeof step);
    if (reader.failed) return false;
    std::memcpy(&step, size_bytes, sizeof step);
    if (!has_steps(dtype) || !std::isnormal(step) || step < 0) return false;
  } else {
    if (!read_coding(reader, decoder.rule) || !read_tables(reader, dtype, decoder)) return false;
  }
  const std::uint8_t* const states = reader.take(kPairStateBytes);
  const std::uint64_t words = reader.varint();
  const std::uint8_t* const data = reader.take(words * sizeof(std::uint32_t));
  if (reader.failed) return false;
  PairReader pair{0, 0, data, data + words * sizeof(std::uint32_t), false};
  std::memcpy(&pair.state, states, sizeof pair.state);
  std::memcpy(&pair.other, states + sizeof pair.state, sizeof pair.other);
  if (pair.state < kPairFloor || pair.other < kPairFloor || (pair.state | pair.other) >> 63 != 0) return false;

  listed.prepare(count, element_bytes);
  if (!read_places(kernel, element_bytes, base, count, places, pair, listed)) return false;
  const std::size_t total = listed.total();
  if (total == 0) return false;
  for (std::size_t n = 0; n < listed.events.size(); ++n) {
    copy_event(base, listed.events[n], element_bytes, listed.base, listed.count + n);
  }
  if (coder == kAsSteps) {
    scratch->outcomes.work_out(dtype, listed.base.data(), total, step);
    const std::size_t movable = count_movable(dtype, listed.base.data(), total, scratch->outcomes);
    const std::size_t direction_bytes = (movable + 7) / 8;
    const std::uint8_t* const directions = reader.take(direction_bytes);
    if (reader.failed) return false;
    // A byte more than there are.
    if (scratch->directions.size() < direction_bytes + 1) scratch->directions.resize(direction_bytes + 1);
    std::memcpy(scratch->directions.data(), directions, direction_bytes);
    read_steps(pair, dtype, listed.base.data(), listed.target.data(), total, listed.events.size(), scratch->outcomes,
               scratch->directions.data());
  } else if (coder == kPaired) {
    // Few elements are searched for.
    total < kWorthSlots ? build_starts(decoder) : build_decode_tables(decoder);
    by_size(element_bytes, [&](auto zero) { take_values<decltype(zero)>(pair, decoder, listed); });
  } else {
    build_decode_tables(decoder);
    SegmentInput segments[kMaxSegments];
    unsigned segment_count = 0;
    if (!read_segments(reader, total, segments, &segment_count)) return false;
    if (!kernel.delta_decode(element_bytes, segments, segment_count, &rule, &decoder.tables, listed.base.data(),
                             listed.target.data())) {
      return false;
    }
  }
  if (!pair.finished() || reader.at != reader.end) return false;

  if (out != base) std::memcpy(out, base, size);
  const std::uint8_t* packed = listed.target.data();
  for (std::size_t at = 0; at < count; at += kBlockElements) {
    const auto rows = static_cast<unsigned>((std::min<std::size_t>(kBlockElements, count - at) + kLanes - 1) / kLanes);
    packed += element_bytes * kernel.sparse_place(element_bytes, packed, listed.masks.data() + at / kLanes, rows,
                                                  out + at * element_bytes);
  }
  for (const std::uint32_t place : listed.events) {
    std::memcpy(out + static_cast<std::size_t>(place) * element_bytes, packed, element_bytes);
    packed += element_bytes;
  }
  return true;
}

}  // namespace textnlp_fast

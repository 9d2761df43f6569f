// Standalone frames: the bytes of the elements in planes, each plane raw, constant, or under its own entropy code.
#include <cstring>

#include "codec/frame.h"
#include "codec/plane_reading.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

constexpr unsigned kPlaneTableLog = 12;
// What a finer table must save of a plane, for its slots take twice the cache.
constexpr double kWorthFine = 0.0005;
// A plane must come down to this share of itself to be worth decoding: one of several, which is a piece of its
// elements, and the only one.
constexpr double kWorthCoding = 0.995;
constexpr double kAloneWorthCoding = 0.997;

struct PlaneScratch {
  std::vector<std::uint8_t> bytes;
  std::uint8_t* planes[kMaxPlanes];

  void prepare(unsigned count, std::size_t size) {
    // 64 bytes of slack: vector kernels load and store whole registers.
    const std::size_t stride = size + 64;
    if (bytes.size() < stride * count) bytes.resize(stride * count);
    for (unsigned p = 0; p < count; ++p) planes[p] = bytes.data() + p * stride;
  }
};

struct PlanePlan {
  PlaneKind kind = kRawPlane;
  std::uint16_t freq[256];
  unsigned symbols = 0;
  unsigned table_log = kPlaneTableLog;
  double bytes = 0;
};

// A segment's states, and the number of its words.
constexpr double kSegmentBytes = sizeof(std::uint32_t) * kLanes + 3;

// Whether a sample of the plane says that coding it saves nothing: most lower planes are noise.
bool looks_random(const std::uint8_t* plane, std::size_t count, double worth) {
  constexpr std::size_t kBlock = 64;
  constexpr std::size_t kEvery = 32 * kBlock;
  if (count < 16 * kEvery) return false;
  std::uint32_t counts[256] = {};
  std::size_t sampled = 0;
  for (std::size_t at = 0; at + kBlock <= count; at += kEvery, sampled += kBlock) {
    for (std::size_t i = 0; i < kBlock; ++i) ++counts[plane[at + i]];
  }
  // A sample shows less entropy than there is, by half a bit of nature's for each further symbol (Miller, 1955).
  unsigned used = 0;
  for (const std::uint32_t symbol_count : counts) used += symbol_count != 0 ? 1 : 0;
  const double unseen = 0.72 * (used - 1);
  return (entropy_bits(counts, 256) + unseen) / 8 > worth * static_cast<double>(sampled);
}

// Counts of a long plane come from a part of it, of each few blocks one; whatever else occurs counts once. Which one
// changes without a period, for rows of matrices have one.
constexpr std::size_t kSampledFrom = std::size_t{1} << 16;
constexpr std::size_t kSampleBlock = 512;
constexpr unsigned kSampleLog = 2;

void count_bytes(const CodecKernels& kernel, const std::uint8_t* plane, std::size_t count, std::uint32_t* counts) {
  if (count < kSampledFrom) return kernel.byte_histogram(plane, count, counts);
  constexpr std::size_t kStride = kSampleBlock << kSampleLog;
  thread_local std::vector<std::uint8_t> sample;
  sample.resize(count);
  std::size_t sampled = 0;
  for (std::size_t stride = 0; stride < count / kStride; ++stride, sampled += kSampleBlock) {
    const std::size_t block = static_cast<std::uint32_t>(stride * 0x9e3779b1u) >> (32 - kSampleLog);
    std::memcpy(sample.data() + sampled, plane + stride * kStride + block * kSampleBlock, kSampleBlock);
  }
  kernel.byte_histogram(sample.data(), sampled, counts);
  std::uint8_t seen[256];
  for (unsigned byte = 0; byte < 256; ++byte) counts[byte] <<= kSampleLog;
  for (std::size_t i = count / kStride * kStride; i < count; ++i) ++counts[plane[i]];
  for (unsigned byte = 0; byte < 256; ++byte) seen[byte] = counts[byte] != 0 ? 1 : 0;
  kernel.byte_presence(plane, count, seen);
  for (unsigned byte = 0; byte < 256; ++byte) counts[byte] += counts[byte] == 0 ? seen[byte] : 0;
}

double planned_bytes(const std::uint32_t* counts, const PlanePlan& plan) {
  const double body = coded_bits(counts, plan.freq, plan.symbols, plan.table_log);
  return (body + estimated_table_bits(plan.freq, plan.symbols)) / 8;
}

// Moves shares one by one from where they are worth least to where they are worth most. normalise() hands out many at a
// time, which shows where many symbols are rare.
void settle(const std::uint32_t* counts, PlanePlan& plan) {
  for (unsigned moves = 0; moves < 256; ++moves) {
    unsigned poorest = 0;
    unsigned richest = 0;
    double most = -1;
    double least = 1e18;
    for (unsigned s = 0; s < plan.symbols; ++s) {
      const std::uint16_t share = plan.freq[s];
      if (share == 0) continue;
      const double gain = counts[s] / (share + 0.5);
      const double loss = share == 1 ? 1e18 : counts[s] / (share - 0.5);
      if (gain > most) {
        most = gain;
        poorest = s;
      }
      if (loss < least) {
        least = loss;
        richest = s;
      }
    }
    if (most <= least) return;
    ++plan.freq[poorest];
    --plan.freq[richest];
  }
}

// Shares under the finer log, where they are worth it; `least` bits are what no shares beat.
void refine(const std::uint32_t* counts, double least, PlanePlan& plan) {
  const double lost = coded_bits(counts, plan.freq, plan.symbols, plan.table_log) - least;
  if (lost / 8 < kWorthFine * plan.bytes) return;
  PlanePlan fine = plan;
  fine.table_log = kFinePlaneLog;
  normalise(counts, fine.symbols, fine.table_log, fine.freq);
  settle(counts, fine);
  for (unsigned s = 0; s < fine.symbols; ++s) {
    if (fine.freq[s] > kMostFineShare) return;
  }
  fine.bytes = planned_bytes(counts, fine);
  if (fine.bytes < (1 - kWorthFine) * plan.bytes) plan = fine;
}

void plan_plane(const CodecKernels& kernel, const std::uint8_t* plane, std::size_t count, double worth,
                PlanePlan& plan) {
  plan.bytes = static_cast<double>(count);
  plan.kind = kRawPlane;
  if (looks_random(plane, count, worth)) return;
  std::uint32_t counts[256] = {};
  count_bytes(kernel, plane, count, counts);
  unsigned used = 0;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (counts[byte] == 0) continue;
    ++used;
    plan.symbols = byte + 1;
  }
  if (used == 1) {
    plan.kind = kConstantPlane;
    plan.bytes = 1;
    return;
  }
  const double least = entropy_bits(counts, 256);
  if (least / 8 > worth * static_cast<double>(count)) return;
  normalise(counts, plan.symbols, kPlaneTableLog, plan.freq);
  plan.bytes = planned_bytes(counts, plan);
  refine(counts, least, plan);
  plan.bytes += kSegmentBytes + 2;
  if (plan.bytes > worth * static_cast<double>(count)) {
    plan.bytes = static_cast<double>(count);
    return;
  }
  plan.kind = kCodedPlane;
}

// Segments of each coded plane: up to four, as long as the states of a further one in all of them do not show in the
// frame.
unsigned segments_of(const PlanePlan* plans, unsigned planes, std::size_t count, double frame_bytes) {
  constexpr double kWorthSegment = 0.00125;
  unsigned coded = 0;
  for (unsigned p = 0; p < planes; ++p) coded += plans[p].kind == kCodedPlane ? 1 : 0;
  if (coded == 0) return 1;
  return segments_within(count, frame_bytes * kWorthSegment / (coded * kSegmentBytes));
}

void write_plane(const CodecKernels& kernel, const std::uint8_t* plane, std::size_t count, const PlanePlan& plan,
                 unsigned segments, SegmentWriter& writer, Sink& out) {
  out.byte(static_cast<std::uint8_t>(plan.kind));
  if (plan.kind == kConstantPlane) {
    out.byte(plane[0]);
    return;
  }
  if (plan.kind == kRawPlane) {
    out.bytes(plane, count);
    return;
  }
  out.byte(static_cast<std::uint8_t>(plan.table_log));
  BitWriter bits(out);
  write_table(bits, plan.freq, plan.symbols);
  bits.finish();
  EncodeSymbol symbols[256] = {};
  build_encode_symbols(plan.freq, plan.symbols, symbols);
  SegmentOutput* const outputs = writer.prepare(count, segments, 1);
  kernel.bytes_encode(plane, symbols, plan.table_log, outputs, segments);
  writer.write(out);
}

struct PlaneInput {
  PlaneHead head;
  ByteDecodeTable table;
  SegmentInput segments[kMaxSegments];
  unsigned segment_count;
};

bool read_plane(ByteReader& reader, std::size_t count, PlaneInput& plane, std::uint32_t* slots) {
  ByteDecodeTable& table = plane.table;
  if (!read_plane_head(reader, count, plane.head, table.freq)) return false;
  if (plane.head.kind != kCodedPlane) return true;
  table.table_log = plane.head.table_log;
  std::uint32_t start = 0;
  for (unsigned s = 0; s < 256; ++s) {
    table.start[s] = static_cast<std::uint16_t>(start);
    start += table.freq[s];
  }
  build_slots(table.freq, 256, slots);
  table.slots = slots;
  return read_segments(reader, count, plane.segments, &plane.segment_count);
}

}  // namespace

bool encode_planes(Dtype dtype, const std::uint8_t* target, std::size_t size, std::size_t limit, Sink& out) {
  const auto planes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / planes;
  const CodecKernels& kernel = *kernels().codec;
  thread_local PlaneScratch split;
  thread_local SegmentWriter writer;
  split.prepare(planes, count);
  kernel.split_planes(planes, rotates(dtype), target, count, split.planes);
  PlanePlan plans[kMaxPlanes];
  double bytes = planes;
  for (unsigned p = 0; p < planes; ++p) {
    plan_plane(kernel, split.planes[p], count, planes == 1 ? kAloneWorthCoding : kWorthCoding, plans[p]);
    bytes += plans[p].bytes;
  }
  if (bytes >= static_cast<double>(limit)) return false;
  const unsigned segments = segments_of(plans, planes, count, bytes);
  for (unsigned p = 0; p < planes; ++p) write_plane(kernel, split.planes[p], count, plans[p], segments, writer, out);
  return !out.full() && out.size() < limit;
}

bool decode_planes(Dtype dtype, ByteReader& reader, std::uint8_t* out, std::size_t size) {
  const auto planes = static_cast<unsigned>(element_size(dtype));
  const std::size_t count = size / planes;
  const CodecKernels& kernel = *kernels().codec;
  thread_local PlaneScratch joined;
  thread_local std::vector<std::uint32_t> slots(kMaxPlanes << kFinePlaneLog);
  thread_local std::vector<PlaneInput> inputs(kMaxPlanes);
  for (unsigned p = 0; p < planes; ++p) {
    if (!read_plane(reader, count, inputs[p], slots.data() + (p << kFinePlaneLog))) return false;
  }
  if (reader.at != reader.end) return false;
  // The common case of two-byte floats: exponents coded, the rest raw.
  if (planes == 2 && inputs[0].head.kind == kCodedPlane && inputs[1].head.kind == kRawPlane) {
    return kernel.bytes_decode_merge2(inputs[0].segments, inputs[0].segment_count, &inputs[0].table, rotates(dtype),
                                      inputs[1].head.raw, out);
  }
  joined.prepare(planes, count);
  const std::uint8_t* sources[kMaxPlanes] = {};
  for (unsigned p = 0; p < planes; ++p) {
    PlaneInput& plane = inputs[p];
    std::uint8_t* const bytes = planes == 1 ? out : joined.planes[p];
    sources[p] = bytes;
    if (plane.head.kind == kRawPlane) {
      sources[p] = plane.head.raw;
    } else if (plane.head.kind == kConstantPlane) {
      std::memset(bytes, plane.head.constant, count);
    } else if (!kernel.bytes_decode(plane.segments, plane.segment_count, &plane.table, bytes)) {
      return false;
    }
  }
  if (planes == 1) {
    if (sources[0] != out) std::memcpy(out, sources[0], count);
    return true;
  }
  kernel.merge_planes(planes, rotates(dtype), sources, count, out);
  return true;
}

bool has_difference(Dtype dtype) noexcept { return element_size(dtype) == 1 && exponent_bits(dtype) == 0; }

bool encode_difference(Dtype dtype, const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                       std::size_t limit, Sink& out) {
  thread_local std::vector<std::uint8_t> differences;
  if (differences.size() < size) differences.resize(size);
  std::uint8_t* const to = differences.data();
  for (std::size_t i = 0; i < size; ++i) to[i] = static_cast<std::uint8_t>(target[i] - base[i]);
  return encode_planes(dtype, to, size, limit, out);
}

bool decode_difference(Dtype dtype, ByteReader& reader, const std::uint8_t* base, std::uint8_t* out, std::size_t size) {
  thread_local std::vector<std::uint8_t> differences;
  if (!has_difference(dtype)) return false;
  // Slack, for vector kernels store whole registers.
  if (differences.size() < size + 64) differences.resize(size + 64);
  if (!decode_planes(dtype, reader, differences.data(), size)) return false;
  // Not straight into `out`, which may be `base`: compilers make vectors of what does not overlap.
  std::uint8_t* const sums = differences.data();
  for (std::size_t i = 0; i < size; ++i) sums[i] = static_cast<std::uint8_t>(sums[i] + base[i]);
  std::memcpy(out, sums, size);
  return true;
}

}  // namespace textnlp_fast

// Standalone frames: the bytes of the elements in planes, each plane raw, constant, or under its own entropy code.
#include <cstring>

#include "codec/frame.h"
#include "codec/plane_choice.h"
#include "codec/plane_reading.h"
#include "codec/tables.h"
#include "cpu/kernels.h"

namespace textnlp_fast {
namespace {

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

// Whether a sample of the plane says that coding it saves nothing: most lower planes are noise.
bool looks_random(const std::uint8_t* plane, std::size_t count, double worth) {
  if (count < kGlancedFrom) return false;
  std::uint32_t counts[256] = {};
  std::size_t sampled = 0;
  for (std::size_t at = 0; at + kGlanceBlock <= count; at += kGlanceEvery, sampled += kGlanceBlock) {
    for (std::size_t i = 0; i < kGlanceBlock; ++i) ++counts[plane[at + i]];
  }
  return choice::shows_noise(OneThread{}, counts, sampled, worth);
}

void count_bytes(const CodecKernels& kernel, const std::uint8_t* plane, std::size_t count, std::uint32_t* counts) {
  if (count < kSampledFrom) return kernel.byte_histogram(plane, count, counts);
  thread_local std::vector<std::uint8_t> sample;
  sample.resize(count);
  std::size_t sampled = 0;
  for (std::size_t stride = 0; stride < count / kSampleStride; ++stride, sampled += kSampleBlock) {
    std::memcpy(sample.data() + sampled, plane + sampled_block(stride), kSampleBlock);
  }
  kernel.byte_histogram(sample.data(), sampled, counts);
  std::uint8_t seen[256];
  for (unsigned byte = 0; byte < 256; ++byte) counts[byte] <<= kSampleLog;
  for (std::size_t i = count / kSampleStride * kSampleStride; i < count; ++i) ++counts[plane[i]];
  for (unsigned byte = 0; byte < 256; ++byte) seen[byte] = counts[byte] != 0 ? 1 : 0;
  kernel.byte_presence(plane, count, seen);
  for (unsigned byte = 0; byte < 256; ++byte) counts[byte] += counts[byte] == 0 ? seen[byte] : 0;
}

void plan_plane(const CodecKernels& kernel, const std::uint8_t* plane, std::size_t count, double worth,
                PlanePlan& plan) {
  if (looks_random(plane, count, worth)) {
    plan.kind = kRawPlane;
    plan.bytes = static_cast<double>(count);
    return;
  }
  std::uint32_t counts[256] = {};
  count_bytes(kernel, plane, count, counts);
  PlanePlan fine;
  choice::plan_plane(OneThread{}, counts, count, worth, plan, fine);
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
  unsigned coded = 0;
  for (unsigned p = 0; p < planes; ++p) coded += plans[p].kind == kCodedPlane ? 1 : 0;
  const unsigned segments = plane_segments(coded, count, bytes);
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

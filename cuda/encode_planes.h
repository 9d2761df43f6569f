// Encodes standalone and difference frames, by a block. Planes are not put anywhere: whoever needs a byte of one takes
// it out of its element. Each plane is planned by a warp, each segment of each coded plane by one.
#pragma once
#include "cuda/encode_team.h"

namespace textnlp_fast::device {

// The elements of a frame as their planes have them.
template <class U>
struct PlaneBytes {
  const std::uint8_t* target;
  const std::uint8_t* base;  // of differences; null otherwise
  bool rotate;

  [[nodiscard]] TEXTNLP_FAST_DEVICE U at(std::size_t i) const {
    U value = load<U>(target, i);
    if (base != nullptr) value = static_cast<U>(value - load<U>(base, i));
    return rotate ? static_cast<U>(value << 1 | value >> (sizeof(U) * 8 - 1)) : value;
  }

  [[nodiscard]] TEXTNLP_FAST_DEVICE static std::uint8_t byte(U value, unsigned plane) {
    return static_cast<std::uint8_t>(value >> (8 * (sizeof(U) - 1 - plane)));
  }
};

TEXTNLP_FAST_DEVICE void clear_counts(PlanesRoom& room, unsigned planes) {
  for (unsigned i = simt::thread(); i < planes * 256; i += kEncodeThreads) {
    room.counts[i / 256][i % 256] = 0;
    room.seen[i / 256][i % 256] = 0;
  }
  simt::sync_block();
}

template <class U>
TEXTNLP_FAST_DEVICE void count_element(PlanesRoom& room, U value) {
  for (unsigned p = 0; p < sizeof(U); ++p) {
    if (!room.noise[p]) simt::atomic_add(&room.counts[p][PlaneBytes<U>::byte(value, p)], 1u);
  }
}

// Marks the planes of which a sample looks like noise.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void glance_at_planes(const Encoding& encoding, const PlaneBytes<U>& bytes, std::size_t count,
                                               double worth) {
  PlanesRoom& room = encoding.shared.planes;
  if (simt::thread() < kMaxPlanes) room.noise[simt::thread()] = false;
  clear_counts(room, sizeof(U));
  if (count < kGlancedFrom) return;
  const std::size_t blocks = (count - kGlanceBlock) / kGlanceEvery + 1;
  for (std::size_t i = simt::thread(); i < blocks * kGlanceBlock; i += kEncodeThreads) {
    count_element<U>(room, bytes.at(i / kGlanceBlock * kGlanceEvery + i % kGlanceBlock));
  }
  simt::sync_block();
  for (unsigned p = simt::warp(); p < sizeof(U); p += kEncodeWarps) {
    const bool noise = choice::shows_noise(encoding.team(), room.counts[p], blocks * kGlanceBlock, worth);
    if (simt::lane() == 0) room.noise[p] = noise;
  }
  simt::sync_block();
  clear_counts(room, sizeof(U));
}

// Counts the bytes of all planes that are not noise: a part of those of a long one, and which others occur.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void count_planes(PlanesRoom& room, const PlaneBytes<U>& bytes, std::size_t count) {
  if (count < kSampledFrom) {
    for (std::size_t i = simt::thread(); i < count; i += kEncodeThreads) count_element<U>(room, bytes.at(i));
    simt::sync_block();
    return;
  }
  const std::size_t strides = count / kSampleStride;
  for (std::size_t i = simt::thread(); i < strides * kSampleBlock; i += kEncodeThreads) {
    count_element<U>(room, bytes.at(sampled_block(i / kSampleBlock) + i % kSampleBlock));
  }
  simt::sync_block();
  for (unsigned i = simt::thread(); i < sizeof(U) * 256; i += kEncodeThreads)
    room.counts[i / 256][i % 256] <<= kSampleLog;
  simt::sync_block();
  for (std::size_t i = strides * kSampleStride + simt::thread(); i < count; i += kEncodeThreads) {
    count_element<U>(room, bytes.at(i));
  }
  simt::sync_block();
  for (std::size_t i = simt::thread(); i < count; i += kEncodeThreads) {
    const U value = bytes.at(i);
    for (unsigned p = 0; p < sizeof(U); ++p) {
      const std::uint8_t byte = PlaneBytes<U>::byte(value, p);
      if (!room.noise[p] && room.counts[p][byte] == 0) room.seen[p][byte] = 1;
    }
  }
  simt::sync_block();
  for (unsigned i = simt::thread(); i < sizeof(U) * 256; i += kEncodeThreads) {
    std::uint32_t& counted = room.counts[i / 256][i % 256];
    if (counted == 0) counted = room.seen[i / 256][i % 256];
  }
  simt::sync_block();
}

// Plans each plane; says in shared.segments how many segments coded ones take, in shared.result whether it is worth it.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void plan_planes(const Encoding& encoding, std::size_t count, double worth,
                                          std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  PlanesRoom& room = shared.planes;
  for (unsigned p = simt::warp(); p < sizeof(U); p += kEncodeWarps) {
    if (room.noise[p]) {
      if (simt::lane() == 0) {
        room.plans[p].kind = kRawPlane;
        room.plans[p].bytes = static_cast<double>(count);
      }
    } else {
      choice::plan_plane(encoding.team(), room.counts[p], count, worth, room.plans[p], room.fine[simt::warp()]);
    }
  }
  simt::sync_block();
  if (simt::thread() == 0) {
    double bytes = sizeof(U);
    unsigned coded = 0;
    for (unsigned p = 0; p < sizeof(U); ++p) {
      bytes += room.plans[p].bytes;
      coded += room.plans[p].kind == kCodedPlane ? 1 : 0;
    }
    shared.result = bytes < static_cast<double>(limit) ? 1 : 0;
    shared.segments = plane_segments(coded, count, bytes);
  }
  simt::sync_block();
}

template <class U>
TEXTNLP_FAST_DEVICE_CALL std::uint32_t put_plane_segment(const PlaneBytes<U>& bytes, unsigned plane, std::size_t begin,
                                                         std::size_t count, const std::uint32_t* symbols, unsigned log,
                                                         WarpWriter& words) {
  std::uint32_t state = kStateFloor;
  std::size_t step = (count - 1) / kLanes * kLanes;
  bool active = step + simt::lane() < count;
  U value = active ? bytes.at(begin + step + simt::lane()) : U{0};
  for (;; step -= kLanes) {
    const bool more = step != 0;
    const U next = bytes.at(begin + (more ? step - kLanes + simt::lane() : 0));
    const EncodeSymbol symbol = active ? unpacked(symbols[PlaneBytes<U>::byte(value, plane)]) : EncodeSymbol{1, 0};
    words.put_symbol(active, state, symbol, log);
    if (!more) return state;
    active = true;
    value = next;
  }
}

// Of planes: 13 bits of the finest table, and one for what rANS loses.
constexpr unsigned kPlaneBits = kFinePlaneLog + 1;

// Codes all segments of all coded planes; streams 4 * plane and following are a plane's.
template <class U>
TEXTNLP_FAST_DEVICE void put_planes(const Encoding& encoding, const PlaneBytes<U>& bytes, std::size_t count,
                                    const SegmentsOf& segments) {
  PlanesRoom& room = encoding.shared.planes;
  // The counts have served: symbols take their place.
  for (unsigned p = simt::warp(); p < sizeof(U); p += kEncodeWarps) {
    if (room.plans[p].kind == kCodedPlane) {
      symbols_of_shares(room.plans[p].freq, room.plans[p].symbols, 256, room.counts[p]);
    }
  }
  simt::sync_block();
  auto* const words_room = reinterpret_cast<std::uint16_t*>(encoding.room.words);
  for (unsigned n = simt::warp(); n < sizeof(U) * segments.count; n += kEncodeWarps) {
    const unsigned p = n / segments.count;
    const unsigned s = n % segments.count;
    if (room.plans[p].kind != kCodedPlane) continue;
    std::uint16_t* const end = words_room + (n + 1) * segments.room;
    WarpWriter words{end};
    const std::uint32_t state = put_plane_segment<U>(bytes, p, s * segments.length, segments.size(count, s),
                                                     room.counts[p], room.plans[p].table_log, words);
    keep_stream(encoding.shared, p * kMostWritten + s, state, words.at, end, encoding.room.words);
  }
  simt::sync_block();
}

// Writes what is not copied, and says where the rest goes; by one warp. Returns where the body ends.
template <class U>
TEXTNLP_FAST_DEVICE_CALL std::size_t lay_planes(const Encoding& encoding, const PlaneBytes<U>& bytes, std::size_t count,
                                                unsigned segments) {
  EncodeShared& shared = encoding.shared;
  PlanesRoom& room = shared.planes;
  const std::size_t capacity = encoding.size;
  std::size_t at = 0;
  for (unsigned p = 0; p < sizeof(U); ++p) {
    const PlanePlan& plan = room.plans[p];
    choice::Plan told;
    if (plan.kind == kCodedPlane) told = choice::plan_table(encoding.team(), plan.freq, plan.symbols);
    if (simt::lane() != 0) continue;
    if (at > capacity) continue;
    Sink out(encoding.body() + at, capacity - at);
    out.byte(static_cast<std::uint8_t>(plan.kind));
    if (plan.kind == kConstantPlane) out.byte(PlaneBytes<U>::byte(bytes.at(0), p));
    if (plan.kind == kCodedPlane) {
      out.byte(static_cast<std::uint8_t>(plan.table_log));
      BitWriter bits(out);
      choice::put_table(bits, plan.freq, plan.symbols, told);
      bits.finish();
    }
    if (out.full()) {
      at = capacity + 1;
      continue;
    }
    at += out.size();
    if (plan.kind == kRawPlane) {
      room.raw_at[p] = static_cast<std::uint32_t>(at);
      at += count;
    } else if (plan.kind == kCodedPlane) {
      at = lay_segments(shared, p * kMostWritten, segments, encoding.body(), capacity, at);
    }
  }
  return at;
}

// Leaves the bytes of the body in shared.result, 0 if it is refused.
template <class U>
TEXTNLP_FAST_DEVICE_CALL void encode_planes(const Encoding& encoding, Dtype dtype, bool difference, std::size_t limit) {
  EncodeShared& shared = encoding.shared;
  PlanesRoom& room = shared.planes;
  const std::size_t count = encoding.size / sizeof(U);
  const PlaneBytes<U> bytes{encoding.target, difference ? encoding.base : nullptr, rotates(dtype)};
  const double worth = sizeof(U) == 1 ? kAloneWorthCoding : kWorthCoding;
  glance_at_planes<U>(encoding, bytes, count, worth);
  count_planes<U>(room, bytes, count);
  plan_planes<U>(encoding, count, worth, limit);
  if (shared.result == 0) return;
  const SegmentsOf segments(count, shared.segments, kPlaneBits);
  put_planes<U>(encoding, bytes, count, segments);
  if (simt::warp() == 0) {
    const std::size_t end = lay_planes<U>(encoding, bytes, count, segments.count);
    if (simt::lane() == 0) shared.result = accepted(encoding, end, limit);
  }
  simt::sync_block();
  if (shared.result != 0) {
    for (unsigned p = 0; p < sizeof(U); ++p) {
      if (room.plans[p].kind == kCodedPlane) copy_segments(encoding, p * kMostWritten, segments.count);
      if (room.plans[p].kind != kRawPlane) continue;
      std::uint8_t* const to = encoding.body() + room.raw_at[p];
      for (std::size_t i = simt::thread(); i < count; i += kEncodeThreads) {
        to[i] = PlaneBytes<U>::byte(bytes.at(i), p);
      }
    }
  }
  simt::sync_block();
}

}  // namespace textnlp_fast::device

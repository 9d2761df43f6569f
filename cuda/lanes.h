// Decodes delta, planes and difference frames: a block takes a frame, each of its warps a segment.
#pragma once
#include "codec/plane_reading.h"
#include "codec/segments.h"
#include "codec/tokens.h"
#include "cuda/frames.h"
#include "cuda/token_tables.h"

namespace textnlp_fast::device {

constexpr unsigned kDeltaPartsLog = 8;
constexpr unsigned kPlanePartsLog = 8;

struct DeltaShared {
  DeltaRule rule;
  // Starts by token; shares while they are read.
  std::uint16_t starts[kMaxContexts][kMaxTokens];
  std::uint8_t first[kMaxContexts][1 << kDeltaPartsLog];
};

struct PlanesShared {
  PlaneHead head;
  const std::uint8_t* places[kMaxPlanes];  // of the planes in the body
  std::uint16_t starts[256];
  std::uint8_t first[1 << kPlanePartsLog];
};

struct LanesShared {
  std::uint32_t frame;
  bool valid;
  unsigned segment_count;
  SegmentParts segments[kMaxSegments];
  union {
    DeltaShared delta;
    PlanesShared planes;
  };
};

// The states of a segment's lanes; false if one is below the floor.
TEXTNLP_FAST_DEVICE bool open_segment(const SegmentParts& segment, std::uint32_t* state, WarpWords* words) {
  *state = load<std::uint32_t>(segment.states, simt::lane());
  *words = {segment.words, segment.end, false};
  return simt::ballot(*state < kStateFloor) == 0;
}

TEXTNLP_FAST_DEVICE bool segment_finished(std::uint32_t state, const WarpWords& words) {
  return simt::ballot(state != kStateFloor || words.overrun || words.at != words.end) == 0;
}

// --- delta ---------------------------------------------------------------------------------------------------

struct DeltaSymbol {
  std::uint32_t state;
  unsigned token;
};

TEXTNLP_FAST_DEVICE DeltaSymbol take_token(std::uint32_t state, unsigned context, const DeltaShared& tables) {
  const unsigned log = tables.rule.table_log;
  const std::uint32_t slot = state & ((1u << log) - 1);
  const std::uint16_t* const starts = tables.starts[context];
  const unsigned token = symbol_from(starts, kMaxTokens, tables.first[context][slot >> (log - kDeltaPartsLog)], slot);
  const std::uint32_t share = share_at(starts, kMaxTokens, log, token);
  return {share * (state >> log) + slot - starts[token], token};
}

template <class U>
TEXTNLP_FAST_DEVICE bool decode_delta_segment(const SegmentParts& segment, const DeltaShared& tables,
                                              const std::uint8_t* base, std::uint8_t* out) {
  std::uint32_t state;
  WarpWords words;
  if (!open_segment(segment, &state, &words)) return false;
  const DeltaRule rule = tables.rule;
  for (std::size_t step = 0; step < segment.count; step += kLanes) {
    const bool active = step + simt::lane() < segment.count;
    const std::size_t i = segment.begin + step + simt::lane();
    const U from = active ? load<U>(base, i) : U{0};
    unsigned token = 0;
    unsigned bits = 0;
    if (active) {
      const unsigned field = context_field(from, rule.element);
      const unsigned above = field > rule.context_base ? field - rule.context_base : 0;
      const DeltaSymbol symbol = take_token(state, above < rule.contexts ? above : rule.contexts - 1, tables);
      state = symbol.state;
      token = symbol.token;
      bits = raw_bits_of(token, rule.scheme);
    }
    state = refill(state, words);
    std::uint64_t raw = 0;
    for (unsigned taken = 0; simt::ballot(bits > taken) != 0; taken += 16) {
      const unsigned left = bits > taken ? bits - taken : 0;
      const unsigned now = left < 16 ? left : 16;
      raw |= static_cast<std::uint64_t>(state & ((1u << now) - 1)) << taken;
      state = refill(state >> now, words);
    }
    if (active) {
      const U residual = residual_of_token<U>(token, raw, rule.scheme);
      store<U>(out, i, apply_residual(from, residual, rule.element.is_float));
    }
  }
  return segment_finished(state, words);
}

// Reads what stands before the words, by one thread.
TEXTNLP_FAST_DEVICE bool read_delta(const DeviceFrame& frame, LanesShared& shared) {
  ByteReader reader{frame.body_dev, frame.body_dev, frame.body_dev + frame.body_size};
  const std::size_t count = frame.decoded_size / element_size(frame.dtype);
  return read_rule(reader, frame.dtype, shared.delta.rule) &&
         read_tables(reader, frame.dtype, shared.delta.rule, shared.delta.starts) &&
         read_segment_parts(reader, count, shared.segments, &shared.segment_count) && reader.at == reader.end;
}

template <class U>
TEXTNLP_FAST_DEVICE bool decode_delta_frame(const DeviceFrame& frame, LanesShared& shared) {
  const unsigned warps = simt::block_threads() / simt::kWarp;
  DeltaShared& tables = shared.delta;
  for (unsigned c = simt::warp(); c < tables.rule.contexts; c += warps) {
    starts_of_shares(tables.starts[c], kMaxTokens);
    find_parts(tables.starts[c], kMaxTokens, tables.rule.table_log, kDeltaPartsLog, tables.first[c]);
  }
  simt::sync_block();
  bool valid = true;
  for (unsigned s = simt::warp(); s < shared.segment_count; s += warps) {
    valid = decode_delta_segment<U>(shared.segments[s], tables, frame.base_dev, frame.out_dev) && valid;
  }
  return valid;
}

// --- planes --------------------------------------------------------------------------------------------------

// Walks over the planes of a body, by one thread: where they begin, and whether all are valid.
TEXTNLP_FAST_DEVICE bool read_planes(const DeviceFrame& frame, LanesShared& shared) {
  ByteReader reader{frame.body_dev, frame.body_dev, frame.body_dev + frame.body_size};
  const auto planes = static_cast<unsigned>(element_size(frame.dtype));
  const std::size_t count = frame.decoded_size / planes;
  if (frame.mode == FrameMode::difference && (planes != 1 || exponent_bits(frame.dtype) != 0)) return false;
  for (unsigned p = 0; p < planes; ++p) {
    shared.planes.places[p] = reader.at;
    if (!read_plane_head(reader, count, shared.planes.head, shared.planes.starts)) return false;
    if (shared.planes.head.kind == kCodedPlane &&
        !read_segment_parts(reader, count, shared.segments, &shared.segment_count)) {
      return false;
    }
  }
  return reader.at == reader.end;
}

// Puts byte `plane` (from the top) of element `i`. The topmost comes last and turns the element back.
template <class U>
TEXTNLP_FAST_DEVICE void put_plane_byte(const DeviceFrame& frame, unsigned plane, std::size_t i, std::uint8_t byte) {
  constexpr auto kPlanes = static_cast<unsigned>(sizeof(U));
  if (kPlanes == 1) {
    frame.out_dev[i] = static_cast<std::uint8_t>(frame.mode == FrameMode::difference ? byte + frame.base_dev[i] : byte);
  } else if (plane != 0) {
    frame.out_dev[i * kPlanes + (kPlanes - 1 - plane)] = byte;
  } else {
    constexpr unsigned kBits = 8 * kPlanes;
    constexpr U kBelow = static_cast<U>((std::uint64_t{1} << (kBits - 8)) - 1);
    const U lower = static_cast<U>(load<U>(frame.out_dev, i) & kBelow);
    const U joined = static_cast<U>(lower | static_cast<U>(static_cast<U>(byte) << (kBits - 8)));
    store<U>(frame.out_dev, i,
             rotates(frame.dtype) ? static_cast<U>(joined >> 1 | static_cast<U>(joined << (kBits - 1))) : joined);
  }
}

template <class U>
TEXTNLP_FAST_DEVICE bool decode_plane_segment(const DeviceFrame& frame, unsigned plane, const SegmentParts& segment,
                                              const PlanesShared& tables) {
  std::uint32_t state;
  WarpWords words;
  if (!open_segment(segment, &state, &words)) return false;
  const unsigned log = tables.head.table_log;
  for (std::size_t step = 0; step < segment.count; step += kLanes) {
    const bool active = step + simt::lane() < segment.count;
    if (active) {
      const std::uint32_t slot = state & ((1u << log) - 1);
      const unsigned symbol = symbol_from(tables.starts, 256, tables.first[slot >> (log - kPlanePartsLog)], slot);
      state = share_at(tables.starts, 256, log, symbol) * (state >> log) + slot - tables.starts[symbol];
      put_plane_byte<U>(frame, plane, segment.begin + step + simt::lane(), static_cast<std::uint8_t>(symbol));
    }
    state = refill(state, words);
  }
  return segment_finished(state, words);
}

template <class U>
TEXTNLP_FAST_DEVICE bool decode_planes_frame(const DeviceFrame& frame, LanesShared& shared) {
  constexpr auto kPlanes = static_cast<unsigned>(sizeof(U));
  const unsigned warps = simt::block_threads() / simt::kWarp;
  const std::size_t count = frame.decoded_size / kPlanes;
  PlanesShared& planes = shared.planes;
  bool valid = true;
  for (unsigned plane = kPlanes; plane-- > 0;) {
    simt::sync_block();
    if (simt::thread() == 0) {
      // A second time, and now to keep: it was valid before.
      ByteReader reader{planes.places[plane], planes.places[plane], frame.body_dev + frame.body_size};
      (void)read_plane_head(reader, count, planes.head, planes.starts);
      if (planes.head.kind == kCodedPlane) {
        (void)read_segment_parts(reader, count, shared.segments, &shared.segment_count);
      }
    }
    simt::sync_block();
    if (planes.head.kind == kCodedPlane) {
      if (simt::warp() == 0) {
        starts_of_shares(planes.starts, 256);
        find_parts(planes.starts, 256, planes.head.table_log, kPlanePartsLog, planes.first);
      }
      simt::sync_block();
      for (unsigned s = simt::warp(); s < shared.segment_count; s += warps) {
        valid = decode_plane_segment<U>(frame, plane, shared.segments[s], planes) && valid;
      }
    } else {
      const bool raw = planes.head.kind == kRawPlane;
      for (std::size_t i = simt::thread(); i < count; i += simt::block_threads()) {
        put_plane_byte<U>(frame, plane, i, raw ? planes.head.raw[i] : planes.head.constant);
      }
    }
  }
  return valid;
}

// --- the kernel ----------------------------------------------------------------------------------------------

TEXTNLP_FAST_DEVICE bool in_lanes(FrameMode mode) {
  return mode == FrameMode::delta || mode == FrameMode::planes || mode == FrameMode::difference;
}

// The frames of these modes, out of a list with others between.
struct DecodeLanes {
  static constexpr unsigned kThreads = 128;
  const DeviceFrame* frames;
  std::uint32_t count;
  std::uint32_t* next;  // 0 at the start
  Outcome outcome;

  TEXTNLP_FAST_DEVICE bool decode(const DeviceFrame& frame, LanesShared& shared) const {
    const bool delta = frame.mode == FrameMode::delta;
    switch (element_size(frame.dtype)) {
      case 1:
        return delta ? decode_delta_frame<std::uint8_t>(frame, shared)
                     : decode_planes_frame<std::uint8_t>(frame, shared);
      case 2:
        return delta ? decode_delta_frame<std::uint16_t>(frame, shared)
                     : decode_planes_frame<std::uint16_t>(frame, shared);
      case 4:
        return delta ? decode_delta_frame<std::uint32_t>(frame, shared)
                     : decode_planes_frame<std::uint32_t>(frame, shared);
      default:
        return delta ? decode_delta_frame<std::uint64_t>(frame, shared)
                     : decode_planes_frame<std::uint64_t>(frame, shared);
    }
  }

  TEXTNLP_FAST_DEVICE void operator()() const {
    LanesShared& shared = *reinterpret_cast<LanesShared*>(simt::shared());
    for (;;) {
      if (simt::thread() == 0) shared.frame = simt::atomic_add(next, 1u);
      simt::sync_block();
      const std::uint32_t number = shared.frame;
      if (number >= count) return;
      const DeviceFrame frame = frames[number];
      if (in_lanes(frame.mode)) {
        if (simt::thread() == 0) {
          shared.valid = frame.mode == FrameMode::delta ? read_delta(frame, shared) : read_planes(frame, shared);
        }
        simt::sync_block();
        const bool valid = shared.valid && decode(frame, shared);
        if (!valid && simt::lane() == 0) outcome.fail(number);
      } else if (frame.mode == FrameMode::raw) {
        copy_by_block(frame.body_dev, frame.out_dev, frame.decoded_size);
      } else if (frame.mode == FrameMode::same && frame.out_dev != frame.base_dev) {
        copy_by_block(frame.base_dev, frame.out_dev, frame.decoded_size);
      }
      simt::sync_block();
    }
  }
};

}  // namespace textnlp_fast::device

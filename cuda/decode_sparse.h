// The kernel that decodes sparse and learned frames: a warp takes frame after frame from one queue.
#pragma once
#include "cuda/learned.h"
#include "cuda/sparse.h"

namespace textnlp_fast::device {

template <class U>
TEXTNLP_FAST_DEVICE bool decode_sparse_frame(const DeviceFrame& frame, SparseShared& shared, const Places& places) {
  const std::size_t count = frame.decoded_size / sizeof(U);
  std::uint8_t* const out = frame.out_dev;
  if (simt::lane() == 0) shared.valid = read_sparse(frame, shared);
  simt::sync_warp();
  if (!shared.valid) return false;
  ByteReader reader = shared.reader;
  PairReader pair;
  if (!open_pair(reader, pair)) return false;
  WarpChances chances;
  Found found;
  if (!take_places<U>(out, count, pair, chances, shared, places, &found) || found.total() == 0) return false;
  const bool learned = frame.mode == FrameMode::learned;
  if (learned && found.total() > kMostLearned) return false;
  if (simt::lane() == 0) {
    shared.valid = learned || shared.telling != Telling::in_lanes ||
                   read_segment_parts(reader, found.total(), shared.segments, &shared.segment_count);
    shared.reader = reader;
  }
  simt::sync_warp();
  if (!shared.valid) return false;
  Row<U> row(out, count, shared, places);
  if (learned) return take_changes<U>(pair, shared, row, found, out);
  bool valid = true;
  if (shared.telling == Telling::as_steps) {
    if constexpr (sizeof(U) == 2) {
      valid = frame.dtype == Dtype::bf16 ? take_moves<Bfloat16>(pair, chances, shared, row, found, out)
                                         : take_moves<Float16>(pair, chances, shared, row, found, out);
    } else if constexpr (sizeof(U) == 4) {
      valid = take_moves<Float32>(pair, chances, shared, row, found, out);
    }
  } else {
    for (unsigned c = 0; c < shared.rule.contexts; ++c) starts_of_shares(shared.starts[c], kMaxTokens);
    if (shared.telling == Telling::in_lanes) {
      valid = take_lanes<U>(shared, row, out) && shared.reader.at == shared.reader.end;
    } else {
      take_paired<U>(pair, shared, row, out);
      valid = shared.reader.at == shared.reader.end;
    }
  }
  return valid && pair.finished();
}

struct DecodeSparse {
  static constexpr unsigned kThreads = 32;
  const DeviceFrame* frames;
  std::uint32_t count;
  std::uint32_t* next;  // 0 at the start
  std::uint8_t* workspace;
  std::size_t workspace_each;  // bytes a block
  Outcome outcome;

  TEXTNLP_FAST_DEVICE void operator()() const {
    SparseShared& shared = *reinterpret_cast<SparseShared*>(simt::shared());
    std::uint8_t* const mine = workspace + simt::block() * workspace_each;
    for (;;) {
      std::uint32_t number = 0;
      if (simt::lane() == 0) number = simt::atomic_add(next, 1u);
      number = simt::shuffle(number, 0);
      if (number >= count) return;
      const DeviceFrame frame = frames[number];
      if (frame.mode != FrameMode::sparse && frame.mode != FrameMode::learned) continue;
      const std::size_t elements = frame.decoded_size / element_size(frame.dtype);
      const std::size_t blocks = (elements + kBlockElements - 1) / kBlockElements;
      const std::size_t words = (blocks + kAliveBits - 1) / kAliveBits;
      const Places places{reinterpret_cast<std::uint32_t*>(mine),
                          reinterpret_cast<std::uint16_t*>(mine + words * sizeof(std::uint32_t))};
      if (frame.out_dev != frame.base_dev) copy_by_block(frame.base_dev, frame.out_dev, frame.decoded_size);
      simt::sync_warp();
      bool valid = false;
      switch (element_size(frame.dtype)) {
        case 1: valid = decode_sparse_frame<std::uint8_t>(frame, shared, places); break;
        case 2: valid = decode_sparse_frame<std::uint16_t>(frame, shared, places); break;
        case 4: valid = decode_sparse_frame<std::uint32_t>(frame, shared, places); break;
        default: valid = decode_sparse_frame<std::uint64_t>(frame, shared, places); break;
      }
      if (!valid && simt::lane() == 0) outcome.fail(number);
      simt::sync_warp();
    }
  }
};

}  // namespace textnlp_fast::device

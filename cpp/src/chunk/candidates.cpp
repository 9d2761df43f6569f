#include "chunk/candidates.h"

#include <algorithm>
#include <bit>

#include "chunk/gear_lanes.h"
#include "textnlp_fast/chunk.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kNoStretch = ~std::size_t{0};

// rows[r][byte] = kGear[byte] << r: four bytes in a row then cost one shift of the hash.
struct ShiftedGear {
  std::uint64_t rows[4][256];
};

constexpr ShiftedGear make_shifted_gear() {
  ShiftedGear shifted{};
  for (unsigned r = 0; r < 4; ++r) {
    for (unsigned byte = 0; byte < 256; ++byte) shifted.rows[r][byte] = kGear[byte] << r;
  }
  return shifted;
}

constexpr ShiftedGear kShifted = make_shifted_gear();

// What a lane without a stretch walks: as far as the fastest goes in a call.
constexpr std::uint8_t kIdleBytes[kGearMaxBlocks * kGearBlock * kGearFastRate] = {};

// What a lane works on. A lane starts kGearBlock bytes early, so that its hash is whole at `valid_from`.
struct Lane {
  std::size_t stretch = kNoStretch;
  std::size_t at = 0;
  std::size_t valid_from = 0;
  std::size_t end = 0;
  std::size_t rate = 1;

  // Whole blocks up to the end. By two constants: seventeen divisions would show.
  [[nodiscard]] std::size_t blocks_left() const noexcept {
    return rate == 1 ? (end - at) / kGearBlock : (end - at) / (kGearBlock * kGearFastRate);
  }
};

class Walker {
 public:
  Walker(const ChunkKernels& kernels, const Stretches& stretches, std::size_t first, std::size_t last) noexcept
      : kernels_(kernels), stretches_(stretches), next_(first), last_(last) {
    for (unsigned index = 0; index < kernels.lanes; ++index) lanes_[index].rate = kernels.rate(index);
  }

  void run() noexcept {
    for (unsigned index = 0; index < kernels_.lanes; ++index) take_stretch(lanes_[index]);
    while (const std::size_t blocks = blocks_ahead()) {
      std::uint32_t suspects[kGearMaxBlocks * kGearParts];
      kernels_.walk(&state_, blocks, suspects);
      for (std::size_t part = 0; part < blocks * kGearParts; ++part) {
        for (std::uint32_t mask = suspects[part]; mask != 0; mask &= mask - 1) {
          look_closer(lanes_[std::countr_zero(mask)], part);
        }
      }
      for (unsigned index = 0; index < kernels_.lanes; ++index) {
        if (lanes_[index].stretch != kNoStretch) settle(lanes_[index], blocks);
      }
    }
  }

 private:
  // Points every lane at its bytes. Returns how far all can go, 0 when none is busy.
  std::size_t blocks_ahead() noexcept {
    std::size_t blocks = kNoStretch;
    for (unsigned index = 0; index < kernels_.lanes; ++index) {
      const Lane& lane = lanes_[index];
      const bool busy = lane.stretch != kNoStretch;
      state_.at[index] = busy ? stretches_.data + lane.at : kIdleBytes;
      if (busy) blocks = std::min(blocks, lane.blocks_left());
    }
    return blocks == kNoStretch ? 0 : std::min(blocks, kGearMaxBlocks);
  }

  // Gives the lane the next stretch with something to look at, or none.
  void take_stretch(Lane& lane) noexcept {
    lane.stretch = kNoStretch;
    while (next_ < last_) {
      const std::size_t stretch = next_++;
      stretches_.counts[stretch] = 0;
      lane.end = stretches_.end(stretch);
      const std::size_t begin = stretches_.begin(stretch);
      // No chunk ends before its minimum, so the buffer's first bytes need no look.
      if (move(lane, stretch, begin < kMinChunkBytes - 1 ? kMinChunkBytes - 1 : begin)) return;
    }
  }

  // Sets the lane to report from `position` on. What is too short to walk is done here: false, and the lane is free.
  bool move(Lane& lane, std::size_t stretch, std::size_t position) noexcept {
    lane.stretch = stretch;
    lane.valid_from = position;
    while (lane.valid_from < lane.end) {
      lane.at = lane.valid_from - kGearBlock;
      if (lane.blocks_left() >= 2) return true;
      const std::size_t found = first_candidate(stretches_.data, lane.valid_from, lane.end);
      if (found == kNoPosition) break;
      record(lane, found);
    }
    lane.stretch = kNoStretch;
    return false;
  }

  void record(Lane& lane, std::size_t position) noexcept {
    stretches_.slots[lane.stretch * stretches_.per_stretch + stretches_.counts[lane.stretch]++] = position;
    lane.valid_from = position + kMinChunkBytes;
  }

  // One of the bytes of this part, or the one before, may be a candidate. What is too near to the last candidate, or
  // was walked only to warm up, lies before `valid_from`.
  void look_closer(Lane& lane, std::size_t part) noexcept {
    if (lane.stretch == kNoStretch) return;
    const std::size_t part_bytes = kGearPart * lane.rate;
    const std::size_t begin = lane.at + part * part_bytes;
    const std::size_t found =
        first_candidate(stretches_.data, std::max(begin - 1, lane.valid_from), begin + part_bytes);
    if (found != kNoPosition) record(lane, found);
  }

  // Moves a lane on by what was walked, or to where the next candidate may be; gives it new work if it is through.
  void settle(Lane& lane, std::size_t blocks) noexcept {
    lane.at += blocks * kGearBlock * lane.rate;
    if (lane.valid_from >= lane.at + kGearBlock) lane.at = lane.valid_from - kGearBlock;
    if (lane.at < lane.end && lane.blocks_left() >= 1) return;
    const std::size_t from = std::max(lane.at, lane.valid_from);
    if (from < lane.end && move(lane, lane.stretch, from)) return;
    take_stretch(lane);
  }

  const ChunkKernels& kernels_;
  const Stretches& stretches_;
  std::size_t next_;
  std::size_t last_;
  Lane lanes_[kGearMaxLanes];
  GearLanes state_{};
};

}  // namespace

std::size_t first_candidate(const std::uint8_t* data, std::size_t from, std::size_t end) noexcept {
  if (from >= end) return kNoPosition;
  const auto entry = [data](unsigned row, std::size_t position) { return kShifted.rows[row][data[position]]; };
  std::uint64_t hash = entry(2, from - 63) + entry(1, from - 62) + entry(0, from - 61);
  for (std::size_t at = from - 60; at < from; at += 4) {
    hash = (hash << 4) + ((entry(3, at) + entry(2, at + 1)) + (entry(1, at + 2) + entry(0, at + 3)));
  }
  for (std::size_t position = from; position < end; ++position) {
    hash = (hash << 1) + entry(0, position);
    if (hash < kCandidateBelow) return position;
  }
  return kNoPosition;
}

void find_candidates(const ChunkKernels& kernels, const Stretches& stretches, std::size_t first,
                     std::size_t last) noexcept {
  Walker(kernels, stretches, first, last).run();
}

}  // namespace textnlp_fast

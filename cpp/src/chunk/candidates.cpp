#include "chunk/candidates.h"

#include "chunk/gear_table.h"
#include "textnlp_fast/chunk.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kNoStretch = ~std::size_t{0};
constexpr std::uint64_t kCandidateBelow = std::uint64_t{1} << 48;

// What a lane works on. A lane starts kGearBlock bytes early, so that its hash is whole at `valid_from`.
struct Lane {
  std::size_t stretch = kNoStretch;
  std::size_t at = 0;
  std::size_t valid_from = 0;
  std::size_t end = 0;
};

class Walker {
 public:
  Walker(const ChunkKernels& kernels, const Stretches& stretches, std::size_t first, std::size_t last) noexcept
      : kernels_(kernels), stretches_(stretches), next_(first), last_(last) {}

  void run() noexcept {
    for (unsigned index = 0; index < kernels_.lanes; ++index) take_stretch(lanes_[index]);
    while (const std::size_t blocks = blocks_ahead()) {
      std::uint16_t suspects[16];
      const std::size_t walked = kernels_.walk(&state_, blocks, suspects);
      unsigned union_of = 0;
      for (const std::uint16_t mask : suspects) union_of |= mask;
      for (unsigned index = 0; index < kernels_.lanes; ++index) {
        Lane& lane = lanes_[index];
        if (lane.stretch == kNoStretch) continue;
        lane.at += walked * kGearBlock;
        if ((union_of >> index & 1U) != 0) look_closer(lane, index, suspects);
        settle(lane);
      }
    }
  }

 private:
  // Points every lane at its bytes; an idle one repeats a busy one. Returns how far all can go, 0 when none is busy.
  std::size_t blocks_ahead() noexcept {
    std::size_t blocks = 0;
    const Lane* busy = nullptr;
    for (unsigned index = 0; index < kernels_.lanes; ++index) {
      const Lane& lane = lanes_[index];
      if (lane.stretch == kNoStretch) continue;
      const std::size_t ahead = (lane.end - lane.at) / kGearBlock;
      if (busy == nullptr || ahead < blocks) blocks = ahead;
      if (busy == nullptr) busy = &lane;
    }
    if (busy == nullptr) return 0;
    for (unsigned index = 0; index < kernels_.lanes; ++index) {
      const Lane& lane = lanes_[index].stretch == kNoStretch ? *busy : lanes_[index];
      state_.at[index] = stretches_.data + lane.at;
    }
    return blocks;
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
      if (lane.end - lane.at >= 2 * kGearBlock) return true;
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

  // The last block walked has suspects in this lane. Takes the first true candidate and jumps to where one may follow.
  void look_closer(Lane& lane, unsigned index, const std::uint16_t* suspects) noexcept {
    const std::size_t block = lane.at - kGearBlock;
    for (std::size_t quad = 0; quad < kGearBlock / 4; ++quad) {
      if ((suspects[quad] >> index & 1U) == 0) continue;
      std::size_t from = block + 4 * quad;
      const std::size_t to = from + 4;
      if (to <= lane.valid_from) continue;
      if (from < lane.valid_from) from = lane.valid_from;
      const std::size_t found = first_candidate(stretches_.data, from, to);
      if (found == kNoPosition) continue;
      record(lane, found);
      lane.at = lane.valid_from - kGearBlock;
      return;
    }
  }

  // Ends a lane that has less than a block left, and gives it new work.
  void settle(Lane& lane) noexcept {
    if (lane.at < lane.end && lane.end - lane.at >= kGearBlock) return;
    const std::size_t from = lane.at > lane.valid_from ? lane.at : lane.valid_from;
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
  std::uint64_t hash = 0;
  for (std::size_t position = from - 63; position < from; ++position) hash = (hash << 1) + kGear[data[position]];
  for (std::size_t position = from; position < end; ++position) {
    hash = (hash << 1) + kGear[data[position]];
    if (hash < kCandidateBelow) return position;
  }
  return kNoPosition;
}

void find_candidates(const ChunkKernels& kernels, const Stretches& stretches, std::size_t first,
                     std::size_t last) noexcept {
  Walker(kernels, stretches, first, last).run();
}

}  // namespace textnlp_fast

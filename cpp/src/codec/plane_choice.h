// What becomes of a byte plane: raw, constant or coded, and under which shares. Shared with the CUDA twin.
#pragma once
#include <cstddef>
#include <cstdint>

#include "codec/plane_reading.h"
#include "codec/segment_choice.h"
#include "codec/table_choice.h"

namespace textnlp_fast {

constexpr unsigned kPlaneTableLog = 12;
// What a finer table must save of a plane, for its slots take twice the cache.
constexpr double kWorthFine = 0.0005;
// A plane must come down to this share of itself to be worth decoding: one of several, which is a piece of its
// elements, and the only one.
constexpr double kWorthCoding = 0.995;
constexpr double kAloneWorthCoding = 0.997;

// From so many bytes on, blocks of so many, one in every so many bytes, say whether a plane is noise.
constexpr std::size_t kGlanceBlock = 64;
constexpr std::size_t kGlanceEvery = 32 * kGlanceBlock;
constexpr std::size_t kGlancedFrom = 16 * kGlanceEvery;

// Counts of a long plane come from a part of it, of each few blocks one; whatever else occurs counts once. Which one
// changes without a period, for rows of matrices have one.
constexpr std::size_t kSampledFrom = std::size_t{1} << 16;
constexpr std::size_t kSampleBlock = 512;
constexpr unsigned kSampleLog = 2;
constexpr std::size_t kSampleStride = kSampleBlock << kSampleLog;

// Where the block begins that is counted of a stride.
TEXTNLP_FAST_HD inline std::size_t sampled_block(std::size_t stride) {
  const std::size_t block = static_cast<std::uint32_t>(stride * 0x9e3779b1u) >> (32 - kSampleLog);
  return stride * kSampleStride + block * kSampleBlock;
}

struct PlanePlan {
  PlaneKind kind = kRawPlane;
  std::uint16_t freq[kMaxSymbols];
  unsigned symbols = 0;
  unsigned table_log = kPlaneTableLog;
  double bytes = 0;
};

// A segment's states, and the number of its words.
constexpr double kSegmentBytes = sizeof(std::uint32_t) * kLanes + 3;

// Segments of each of `coded` planes: up to four, as long as the states of a further one in all of them do not show in
// the frame.
TEXTNLP_FAST_HD inline unsigned plane_segments(unsigned coded, std::size_t count, double frame_bytes) {
  constexpr double kWorthSegment = 0.00125;
  if (coded == 0) return 1;
  return segments_within(count, frame_bytes * kWorthSegment / (coded * kSegmentBytes));
}

namespace choice {

template <class Team>
TEXTNLP_FAST_HD inline unsigned used_bytes(const Team& team, const std::uint32_t* counts) {
  std::int64_t used = 0;
  own_symbols(team, 256, [&](unsigned byte) { used += counts[byte] != 0 ? 1 : 0; });
  return static_cast<unsigned>(team.sum(used));
}

// Whether what a sample shows says that coding the plane saves nothing.
template <class Team>
TEXTNLP_FAST_HD_CALL bool shows_noise(const Team& team, const std::uint32_t* counts, std::size_t sampled,
                                      double worth) {
  // A sample shows less entropy than there is, by half a bit of nature's for each further symbol (Miller, 1955).
  const double unseen = 0.72 * (used_bytes(team, counts) - 1);
  return (entropy_bits(team, counts, 256) + unseen) / 8 > worth * static_cast<double>(sampled);
}

template <class Team>
TEXTNLP_FAST_HD inline double planned_bytes(const Team& team, const std::uint32_t* counts, const PlanePlan& plan) {
  const double body = coded_bits(team, counts, plan.freq, plan.symbols, plan.table_log);
  return (body + estimated_table_bits(team, plan.freq, plan.symbols)) / 8;
}

// Moves shares one by one from where they are worth least to where they are worth most. normalise() hands out many at a
// time, which shows where many symbols are rare.
template <class Team>
TEXTNLP_FAST_HD_CALL void settle(const Team& team, const std::uint32_t* counts, PlanePlan& plan) {
  for (unsigned moves = 0; moves < 256; ++moves) {
    int poorest = -1;
    int richest = -1;
    double most = -1;
    double least = 1e18;
    own_symbols(team, plan.symbols, [&](unsigned s) {
      const std::uint16_t share = plan.freq[s];
      if (share == 0) return;
      const double gain = counts[s] / (share + 0.5);
      const double loss = share == 1 ? 1e18 : counts[s] / (share - 0.5);
      if (gain > most) {
        most = gain;
        poorest = static_cast<int>(s);
      }
      if (loss < least) {
        least = loss;
        richest = static_cast<int>(s);
      }
    });
    team.best(most, poorest);
    double cheapest = -least;
    team.best(cheapest, richest);
    if (richest < 0 || most <= -cheapest) return;
    team.sync();
    if (team.lane() == 0) {
      ++plan.freq[poorest];
      --plan.freq[richest];
    }
    team.sync();
  }
}

// Shares under the finer log, made in `fine`, where they are worth it; `least` bits are what no shares beat. The plan's
// bytes are handed in and back.
template <class Team>
TEXTNLP_FAST_HD_CALL double refine(const Team& team, const std::uint32_t* counts, double least, double bytes,
                                   PlanePlan& plan, PlanePlan& fine) {
  const double lost = coded_bits(team, counts, plan.freq, plan.symbols, plan.table_log) - least;
  if (lost / 8 < kWorthFine * bytes) return bytes;
  const unsigned symbols = plan.symbols;
  if (team.lane() == 0) {
    fine.symbols = symbols;
    fine.table_log = kFinePlaneLog;
  }
  team.sync();
  normalise(team, counts, symbols, kFinePlaneLog, fine.freq);
  settle(team, counts, fine);
  std::int64_t large = 0;
  own_symbols(team, symbols, [&](unsigned s) { large += fine.freq[s] > kMostFineShare ? 1 : 0; });
  if (team.sum(large) != 0) return bytes;
  const double with_it = planned_bytes(team, counts, fine);
  if (with_it >= (1 - kWorthFine) * bytes) return bytes;
  own_symbols(team, symbols, [&](unsigned s) { plan.freq[s] = fine.freq[s]; });
  if (team.lane() == 0) plan.table_log = kFinePlaneLog;
  team.sync();
  return with_it;
}

// Plans a plane of `count` bytes by their counts.
template <class Team>
TEXTNLP_FAST_HD_CALL void plan_plane(const Team& team, const std::uint32_t* counts, std::size_t count, double worth,
                                     PlanePlan& plan, PlanePlan& fine) {
  double high = 0;
  int last = -1;
  own_symbols(team, 256, [&](unsigned byte) {
    if (counts[byte] == 0) return;
    high = byte;
    last = static_cast<int>(byte);
  });
  team.best(high, last);
  const auto symbols = static_cast<unsigned>(last) + 1;
  PlaneKind kind = kRawPlane;
  auto bytes = static_cast<double>(count);
  if (team.lane() == 0) {
    plan.symbols = symbols;
    plan.table_log = kPlaneTableLog;
  }
  team.sync();
  if (used_bytes(team, counts) == 1) {
    kind = kConstantPlane;
    bytes = 1;
  } else {
    const double least = entropy_bits(team, counts, 256);
    if (least / 8 <= worth * static_cast<double>(count)) {
      normalise(team, counts, symbols, kPlaneTableLog, plan.freq);
      bytes = refine(team, counts, least, planned_bytes(team, counts, plan), plan, fine);
      bytes += kSegmentBytes + 2;
      kind = kCodedPlane;
      if (bytes > worth * static_cast<double>(count)) {
        kind = kRawPlane;
        bytes = static_cast<double>(count);
      }
    }
  }
  if (team.lane() == 0) {
    plan.kind = kind;
    plan.bytes = bytes;
  }
  team.sync();
}

}  // namespace choice
}  // namespace textnlp_fast

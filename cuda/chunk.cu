// Content-defined chunking of device memory: many spans in one go, in three steps.
//
// Mark: every thread hashes a stretch of 1 KiB and writes a word, a bit of which says that a chunk may end in those 32
// bytes. Guess: a warp cuts a segment of 4 MiB as if a chunk started with it; only where bits are set does it hash
// again for the byte. Join: a warp a span follows the true chunks. Cuts that start at different places soon meet, and
// from where they do the guess is the truth: so a span of many segments is cut at the speed of a device, not of a
// chain.
#include "chunk/gear_table.h"
#include "cuda/frames.h"
#include "cuda/memory.h"
#include "cuda/pieces.h"
#include "cuda/simt.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kWindowBytes = 64;              // what a hash depends on
constexpr std::size_t kGrainBytes = 32;               // what a bit stands for
constexpr std::size_t kWordBytes = 32 * kGrainBytes;  // what a word of bits stands for
constexpr std::size_t kSegmentBytes = std::size_t{4} << 20;

struct Gear {
  std::uint64_t of[256];
};
constexpr Gear gear() {
  Gear gear{};
  for (unsigned byte = 0; byte < 256; ++byte) gear.of[byte] = kGear[byte];
  return gear;
}
TEXTNLP_FAST_DEVICE_DATA constexpr Gear kDeviceGear = gear();

// Into shared memory, by a block: lanes look up different entries.
TEXTNLP_FAST_DEVICE const std::uint64_t* load_gear() {
  auto* const table = reinterpret_cast<std::uint64_t*>(simt::shared());
  for (unsigned i = simt::thread(); i < 256; i += simt::block_threads()) table[i] = kDeviceGear.of[i];
  simt::sync_block();
  return table;
}

// The spans, and where what is made of each begins.
struct Work {
  const DeviceSpan* spans;
  std::size_t count;
  const std::uint64_t* words_before;
  const std::uint64_t* ends_before;
  const std::uint64_t* segments_before;
  std::uint64_t word_room;
  std::uint64_t end_room;
  std::uint64_t segment_room;

  // Whether the spans are no larger than was said.
  TEXTNLP_FAST_DEVICE bool fits() const {
    return words_before[count] <= word_room && ends_before[count] <= end_room && segments_before[count] <= segment_room;
  }
};

struct Mark {
  static constexpr unsigned kThreads = 256;
  Work work;
  std::uint32_t* words;

  struct Walk {
    const std::uint64_t* gear;
    std::size_t begin;
    std::uint64_t hash = 0;
    std::uint32_t marks = 0;

    TEXTNLP_FAST_DEVICE void take(std::uint32_t byte, std::size_t at) {
      hash = (hash << 1) + gear[byte];
      if (hash < kCandidateBelow && at >= begin) marks |= 1u << ((at - begin) / kGrainBytes);
    }
  };

  TEXTNLP_FAST_DEVICE static std::uint32_t marks_of(const DeviceSpan& span, std::size_t begin,
                                                    const std::uint64_t* gear) {
    struct alignas(16) Vector {
      std::uint32_t words[4];
    };
    const std::size_t left = static_cast<std::size_t>(span.size) - begin;
    const std::size_t end = begin + (left < kWordBytes ? left : kWordBytes);
    Walk walk{gear, begin};
    // The window of the first byte starts before it; what is older is shifted out. A span's very first bytes have no
    // whole one, and end no chunk.
    std::size_t at = begin == 0 ? 0 : begin - kWindowBytes;
    while (at < end) {
      const std::uint8_t* const data = span.data_dev + at;
      if (at + sizeof(Vector) > end || !device::aligned<Vector>(data)) {
        walk.take(*data, at++);
        continue;
      }
      const Vector vector = *reinterpret_cast<const Vector*>(data);
      TEXTNLP_FAST_UNROLL
      for (unsigned b = 0; b < sizeof(Vector); ++b) walk.take(vector.words[b / 4] >> (8 * (b % 4)) & 0xff, at + b);
      at += sizeof(Vector);
    }
    return walk.marks;
  }

  TEXTNLP_FAST_DEVICE void operator()() const {
    const std::uint64_t* const gear = load_gear();
    if (!work.fits()) return;
    const std::uint64_t total = work.words_before[work.count];
    const std::uint64_t step = std::uint64_t{simt::blocks()} * kThreads;
    for (std::uint64_t word = std::uint64_t{simt::block()} * kThreads + simt::thread(); word < total; word += step) {
      const std::size_t n = device::span_of(work.words_before, work.count, word);
      words[word] = marks_of(work.spans[n], static_cast<std::size_t>(word - work.words_before[n]) * kWordBytes, gear);
    }
  }
};

// Finds the chunks of one span, by a whole warp.
struct Cutter {
  const std::uint8_t* data;
  std::size_t size;
  const std::uint32_t* words;  // of the span
  const std::uint64_t* gear;

  TEXTNLP_FAST_DEVICE bool is_candidate(std::size_t position) const {
    std::uint64_t hash = 0;
    TEXTNLP_FAST_UNROLL
    for (unsigned i = 0; i < kWindowBytes; ++i) hash = (hash << 1) + gear[data[position + 1 - kWindowBytes + i]];
    return hash < kCandidateBelow;
  }

  // The first candidate in [from, end), or `end`.
  TEXTNLP_FAST_DEVICE std::size_t first_candidate(std::size_t from, std::size_t end) const {
    const std::size_t start = from / kWordBytes;
    for (std::size_t first = start; first * kWordBytes < end; first += simt::kWarp) {
      const std::size_t mine = first + simt::lane();
      std::uint32_t marks = mine * kWordBytes < end ? words[mine] : 0;
      if (mine == start) marks &= ~0u << (from % kWordBytes / kGrainBytes);
      for (std::uint32_t lanes = simt::ballot(marks != 0); lanes != 0; lanes = simt::ballot(marks != 0)) {
        const unsigned lane = simt::lowest_bit(lanes);
        const unsigned grain = simt::lowest_bit(simt::shuffle(marks, lane));
        const std::size_t begin = (first + lane) * kWordBytes + grain * kGrainBytes;
        const std::size_t position = begin + simt::lane();
        const bool here = position >= from && position < end && is_candidate(position);
        const std::uint32_t found = simt::ballot(here);
        if (found != 0) return begin + simt::lowest_bit(found);
        // It lies beside what was asked for.
        if (simt::lane() == lane) marks &= marks - 1;
      }
    }
    return end;
  }

  // Where the chunk that starts at `start` ends.
  TEXTNLP_FAST_DEVICE std::size_t end_of_chunk(std::size_t start) const {
    const std::size_t left = size - start;
    if (left < kMinChunkBytes) return size;
    const std::size_t limit = start + (left < kMaxChunkBytes ? left : kMaxChunkBytes);
    const std::size_t found = first_candidate(start + kMinChunkBytes - 1, limit);
    return found == limit ? limit : found + 1;
  }
};

TEXTNLP_FAST_DEVICE Cutter cutter_of(const Work& work, const std::uint32_t* words, const std::uint64_t* gear,
                                     std::size_t n) {
  const DeviceSpan span = work.spans[n];
  return {span.data_dev, static_cast<std::size_t>(span.size), words + work.words_before[n], gear};
}

struct Guess {
  static constexpr unsigned kThreads = 128;
  Work work;
  const std::uint32_t* words;
  std::uint64_t* guesses;  // laid out as the ends; a segment's start where its first byte would have it
  std::uint32_t* guessed;  // of each segment

  TEXTNLP_FAST_DEVICE void operator()() const {
    const std::uint64_t* const gear = load_gear();
    if (!work.fits()) return;
    const std::uint64_t total = work.segments_before[work.count];
    const unsigned warps = kThreads / simt::kWarp;
    const std::uint64_t step = std::uint64_t{simt::blocks()} * warps;
    for (std::uint64_t s = std::uint64_t{simt::block()} * warps + simt::warp(); s < total; s += step) {
      const std::size_t n = device::span_of(work.segments_before, work.count, s);
      const Cutter cutter = cutter_of(work, words, gear, n);
      const std::size_t begin = static_cast<std::size_t>(s - work.segments_before[n]) * kSegmentBytes;
      const std::size_t left = cutter.size - begin;
      const std::size_t end = begin + (left < kSegmentBytes ? left : kSegmentBytes);
      std::uint64_t* const to = guesses + work.ends_before[n] + begin / kMinChunkBytes;
      std::uint32_t made = 0;
      for (std::size_t at = begin; at < end; ++made) {
        at = cutter.end_of_chunk(at);
        if (simt::lane() == 0) to[made] = at;
      }
      if (simt::lane() == 0) guessed[s] = made;
      simt::sync_warp();
    }
  }
};

struct Join {
  static constexpr unsigned kThreads = 128;
  Work work;
  const std::uint32_t* words;
  const std::uint64_t* guesses;
  const std::uint32_t* guessed;
  std::uint64_t* ends;
  std::uint64_t* counts;

  // How many of a segment's guesses end at `at` or before, if a chunk of the guess starts there; else `have`.
  TEXTNLP_FAST_DEVICE static std::uint32_t meets(const std::uint64_t* guess, std::uint32_t have, std::size_t at) {
    if (at % kSegmentBytes == 0) return 0;
    for (std::uint32_t first = 0; first < have; first += simt::kWarp) {
      const std::uint32_t i = first + simt::lane();
      const std::uint32_t found = simt::ballot(i < have && guess[i] == at);
      if (found != 0) return first + simt::lowest_bit(found) + 1;
    }
    return have;
  }

  TEXTNLP_FAST_DEVICE std::uint64_t join(const Cutter& cutter, std::size_t n) const {
    std::uint64_t* const to = ends + work.ends_before[n];
    std::uint64_t made = 0;
    std::size_t at = 0;
    while (at < cutter.size) {
      const std::size_t s = at / kSegmentBytes;
      const std::uint64_t* const guess = guesses + work.ends_before[n] + s * (kSegmentBytes / kMinChunkBytes);
      const std::uint32_t have = guessed[work.segments_before[n] + s];
      const std::uint32_t met = meets(guess, have, at);
      if (met == have) {
        at = cutter.end_of_chunk(at);
        if (simt::lane() == 0) to[made] = at;
        ++made;
        continue;
      }
      for (std::uint32_t i = met + simt::lane(); i < have; i += simt::kWarp) to[made + i - met] = guess[i];
      made += have - met;
      at = static_cast<std::size_t>(guess[have - 1]);
    }
    return made;
  }

  TEXTNLP_FAST_DEVICE void operator()() const {
    const std::uint64_t* const gear = load_gear();
    const bool fits = work.fits();
    const unsigned warps = kThreads / simt::kWarp;
    const std::size_t step = std::size_t{simt::blocks()} * warps;
    for (std::size_t n = std::size_t{simt::block()} * warps + simt::warp(); n < work.count; n += step) {
      const std::uint64_t made = fits ? join(cutter_of(work, words, gear, n), n) : 0;
      if (simt::lane() == 0) counts[n] = made;
      simt::sync_warp();
    }
  }
};

constexpr std::size_t kGearBytes = sizeof(Gear);

std::size_t rounded(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

// Where the parts of a workspace begin.
struct Layout {
  std::uint64_t word_room;
  std::uint64_t end_room;
  std::uint64_t segment_room;
  std::size_t table;
  std::size_t words;
  std::size_t guesses;
  std::size_t guessed;
  std::size_t size;
};

Layout layout_of(std::size_t count, std::uint64_t total_bytes) {
  Layout layout{};
  layout.word_room = total_bytes / kWordBytes + count;
  layout.end_room = total_bytes / kMinChunkBytes + count;
  layout.segment_room = total_bytes / kSegmentBytes + count;
  layout.table = rounded((count + 1) * sizeof(std::uint64_t));
  layout.words = 3 * layout.table;
  layout.guesses = layout.words + rounded(static_cast<std::size_t>(layout.word_room) * sizeof(std::uint32_t));
  layout.guessed = layout.guesses + rounded(static_cast<std::size_t>(layout.end_room) * sizeof(std::uint64_t));
  layout.size = layout.guessed + rounded(static_cast<std::size_t>(layout.segment_room) * sizeof(std::uint32_t));
  return layout;
}

// As many blocks as the work has use for, and as run at once.
template <class Kernel>
Status launch_for(const Kernel& kernel, std::uint64_t units, unsigned units_a_block, void* stream) noexcept {
  std::size_t blocks = 0;
  const Status status = simt::resident_blocks<Kernel>(kGearBytes, &blocks);
  if (!status.ok()) return status;
  const std::uint64_t useful = (units + units_a_block - 1) / units_a_block;
  return simt::launch(kernel, useful < blocks ? static_cast<std::size_t>(useful) : blocks, kGearBytes, stream);
}

}  // namespace

std::size_t cuda_chunk_workspace(std::size_t count, std::uint64_t total_bytes) noexcept {
  return layout_of(count, total_bytes).size;
}

Status cuda_chunk(const DeviceSpan* spans_dev, std::size_t count, std::uint64_t total_bytes, void* workspace_dev,
                  std::size_t workspace_size, std::uint64_t* ends_dev, std::uint64_t* counts_dev,
                  void* stream) noexcept {
  const Layout layout = layout_of(count, total_bytes);
  if (workspace_size < layout.size || reinterpret_cast<std::uintptr_t>(workspace_dev) % 16 != 0) {
    return Status::failure(Code::invalid_argument, "the workspace is too small or not aligned to 16 bytes");
  }
  if (count == 0) return {};
  auto* const bytes = static_cast<std::uint8_t*>(workspace_dev);
  auto* const words_before = reinterpret_cast<std::uint64_t*>(bytes);
  auto* const ends_before = reinterpret_cast<std::uint64_t*>(bytes + layout.table);
  auto* const segments_before = reinterpret_cast<std::uint64_t*>(bytes + 2 * layout.table);
  auto* const words = reinterpret_cast<std::uint32_t*>(bytes + layout.words);
  auto* const guesses = reinterpret_cast<std::uint64_t*>(bytes + layout.guesses);
  auto* const guessed = reinterpret_cast<std::uint32_t*>(bytes + layout.guessed);
  using Count = device::CountPieces<DeviceSpan>;
  Status status = simt::launch(Count{spans_dev, count, kWordBytes, words_before}, 1, 0, stream);
  if (status.ok()) status = simt::launch(Count{spans_dev, count, kMinChunkBytes, ends_before}, 1, 0, stream);
  if (status.ok()) status = simt::launch(Count{spans_dev, count, kSegmentBytes, segments_before}, 1, 0, stream);
  const Work work{spans_dev,        count,           words_before,       ends_before, segments_before,
                  layout.word_room, layout.end_room, layout.segment_room};
  constexpr unsigned kWarps = Guess::kThreads / simt::kWarp;
  if (status.ok()) status = launch_for(Mark{work, words}, layout.word_room, Mark::kThreads, stream);
  if (status.ok()) status = launch_for(Guess{work, words, guesses, guessed}, layout.segment_room, kWarps, stream);
  const Join join{work, words, guesses, guessed, ends_dev, counts_dev};
  if (status.ok()) status = launch_for(join, count, kWarps, stream);
  return status;
}

Status cuda_chunk_now(const DeviceSpan* spans, std::size_t count, std::uint64_t* ends, std::uint64_t* counts,
                      void* stream) noexcept {
  if (count == 0) return {};
  std::uint64_t total = 0;
  std::size_t places = 0;
  for (std::size_t n = 0; n < count; ++n) {
    total += spans[n].size;
    places += static_cast<std::size_t>((spans[n].size + kMinChunkBytes - 1) / kMinChunkBytes);
  }
  const std::size_t list = rounded(count * sizeof(DeviceSpan));
  const std::size_t made = rounded(places * sizeof(std::uint64_t));
  const std::size_t numbers = rounded(count * sizeof(std::uint64_t));
  const std::size_t workspace = cuda_chunk_workspace(count, total);
  simt::DeviceMemory memory(stream);
  Status status = memory.allocate(list + made + numbers + workspace);
  if (!status.ok()) return status;
  auto* const spans_dev = reinterpret_cast<DeviceSpan*>(memory.data());
  auto* const ends_dev = reinterpret_cast<std::uint64_t*>(memory.data() + list);
  auto* const counts_dev = reinterpret_cast<std::uint64_t*>(memory.data() + list + made);
  status = simt::to_device(spans_dev, spans, count * sizeof(DeviceSpan), stream);
  if (status.ok()) {
    status = cuda_chunk(spans_dev, count, total, memory.data() + list + made + numbers, workspace, ends_dev, counts_dev,
                        stream);
  }
  if (status.ok()) status = simt::to_host(ends, ends_dev, places * sizeof(std::uint64_t), stream);
  if (status.ok()) status = simt::to_host(counts, counts_dev, count * sizeof(std::uint64_t), stream);
  const Status waited = simt::wait(stream);
  return status.ok() ? waited : status;
}

}  // namespace textnlp_fast

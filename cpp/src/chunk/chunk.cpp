#include "textnlp_fast/chunk.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "chunk/candidates.h"
#include "cpu/kernels.h"
#include "thread/parallel.h"

namespace textnlp_fast {
namespace {

// Below this a walk of many stretches costs more than it saves.
constexpr std::size_t kSequentialBytes = 96 * 1024;
constexpr std::size_t kMinStretchBytes = 16 * 1024;
constexpr std::size_t kMaxStretchBytes = 128 * 1024;
// A little more than a power of two: lanes whose bytes are a power of two apart fight for the same lines of the cache.
constexpr std::size_t kStretchSkewBytes = 7 * kGearBlock;

std::size_t stretch_bytes_for(std::size_t size, unsigned lanes) noexcept {
  const std::size_t even = size / (std::size_t{lanes} * 8);
  const std::size_t bounded = std::clamp(even, kMinStretchBytes, kMaxStretchBytes);
  return bounded / 4096 * 4096 + kStretchSkewBytes;
}

// Pass two over the stretches: the first candidate at or behind a position, where nothing that pass one left out counts
// as looked at.
class Selector {
 public:
  explicit Selector(const Stretches& stretches) noexcept : stretches_(stretches) {}

  std::size_t first_at_or_behind(std::size_t from, std::size_t end) noexcept {
    if (from >= end) return kNoPosition;
    for (std::size_t stretch = from / stretches_.stretch_bytes; stretches_.begin(stretch) < end; ++stretch) {
      const std::size_t found = in_stretch(stretch, from, end);
      if (found != kNoPosition) return found;
      if (stretches_.end(stretch) == stretches_.size) break;
    }
    return kNoPosition;
  }

 private:
  std::size_t in_stretch(std::size_t stretch, std::size_t from, std::size_t end) const noexcept {
    const std::uint64_t* slots = stretches_.slots + stretch * stretches_.per_stretch;
    const std::uint32_t count = stretches_.counts[stretch];
    end = std::min(end, stretches_.end(stretch));
    for (std::uint32_t index = 0; index < count; ++index) {
      const std::size_t candidate = slots[index];
      if (candidate >= end) return kNoPosition;
      if (candidate >= from) return candidate;
      // Passed over: the bytes behind it were skipped as if a chunk had ended there.
      const std::size_t skipped_end = std::min(candidate + kMinChunkBytes, end);
      const std::size_t found = first_candidate(stretches_.data, from, skipped_end);
      if (found != kNoPosition) return found;
    }
    return kNoPosition;
  }

  const Stretches& stretches_;
};

// Ends of the chunks of data[0, size) that are certain: found, or at the maximum. Returns their number. `search(from,
// end)` gives the first candidate in [from, end).
template <class Search>
std::size_t cut(std::size_t size, std::uint64_t offset, std::uint64_t* ends, Search search) noexcept {
  std::size_t count = 0;
  std::size_t start = 0;
  while (size - start >= kMinChunkBytes) {
    const std::size_t limit = std::min(size, start + kMaxChunkBytes);
    const std::size_t found = search(start + kMinChunkBytes - 1, limit);
    if (found == kNoPosition && limit - start < kMaxChunkBytes) break;
    start = found == kNoPosition ? limit : found + 1;
    ends[count++] = offset + start;
  }
  return count;
}

Status cut_all(const std::uint8_t* data, std::size_t size, unsigned threads, std::uint64_t offset, std::uint64_t* ends,
               std::size_t* count) noexcept {
  if (size < kSequentialBytes) {
    *count =
        cut(size, offset, ends, [&](std::size_t from, std::size_t end) { return first_candidate(data, from, end); });
    return {};
  }
  const ChunkKernels& table = *kernels().chunk;
  Stretches stretches{data, size, stretch_bytes_for(size, table.lanes), 0, nullptr, nullptr};
  const std::size_t stretch_count = (size + stretches.stretch_bytes - 1) / stretches.stretch_bytes;
  stretches.per_stretch = stretches.stretch_bytes / kMinChunkBytes + 1;
  const std::unique_ptr<std::uint64_t[]> slots(new (std::nothrow) std::uint64_t[stretch_count * stretches.per_stretch]);
  const std::unique_ptr<std::uint32_t[]> counts(new (std::nothrow) std::uint32_t[stretch_count]());
  if (slots == nullptr || counts == nullptr) {
    return Status::failure(Code::out_of_memory, "no memory for the chunk candidates");
  }
  stretches.slots = slots.get();
  stretches.counts = counts.get();
  // Lanes that run out of stretches idle while the last ones finish: few and large groups, more of them for more
  // threads.
  const std::size_t workers = threads == 0 ? default_threads() : threads;
  const std::size_t groups =
      workers == 1 ? 1
                   : std::max<std::size_t>(1, std::min(workers * 4, stretch_count / (std::size_t{table.lanes} * 8)));
  const std::size_t group = (stretch_count + groups - 1) / groups;
  parallel_for((stretch_count + group - 1) / group, threads, [&](std::size_t index) {
    find_candidates(table, stretches, index * group, std::min(stretch_count, (index + 1) * group));
  });
  Selector selector(stretches);
  *count = cut(size, offset, ends,
               [&](std::size_t from, std::size_t end) { return selector.first_at_or_behind(from, end); });
  return {};
}

}  // namespace

Status chunk_boundaries(const std::uint8_t* data, std::size_t size, unsigned threads, std::uint64_t* ends,
                        std::size_t capacity, std::size_t* count) noexcept {
  *count = 0;
  if (size == 0) return {};
  if (capacity < max_chunks(size)) {
    return Status::failure(Code::invalid_argument, "room for too few chunk ends: max_chunks(size) are needed");
  }
  const Status status = cut_all(data, size, threads, 0, ends, count);
  if (!status.ok()) return status;
  if (*count == 0 || ends[*count - 1] != size) ends[(*count)++] = size;
  return {};
}

Status Chunker::feed(const std::uint8_t* data, std::size_t size, unsigned threads, std::uint64_t* ends,
                     std::size_t capacity, std::size_t* count) noexcept {
  *count = 0;
  if (size == 0) return {};
  if (capacity < max_chunks(size)) {
    return Status::failure(Code::invalid_argument, "room for too few chunk ends: max_chunks(size) are needed");
  }
  // The open chunk's end first. Its candidates' windows may reach back into what was fed before: `seam` holds the last
  // 64 bytes of that and the first 64 of this.
  std::size_t start = 0;
  std::size_t written = 0;
  bool open = open_ != 0;
  if (open) {
    const std::size_t limit = std::min(size, kMaxChunkBytes - open_);
    const std::size_t from = open_ >= kMinChunkBytes - 1 ? 0 : kMinChunkBytes - 1 - open_;
    std::size_t found = kNoPosition;
    if (from < 64) {
      std::uint8_t seam[128];
      const std::size_t taken = std::min<std::size_t>(size, 64);
      std::memcpy(seam, recent_, 64);
      std::memcpy(seam + 64, data, taken);
      found = first_candidate(seam, 64 + from, 64 + std::min(taken, limit));
      if (found != kNoPosition) found -= 64;
    }
    if (found == kNoPosition) found = first_candidate(data, std::max<std::size_t>(from, 64), limit);
    if (found != kNoPosition || limit == kMaxChunkBytes - open_) {
      start = found != kNoPosition ? found + 1 : limit;
      ends[written++] = fed_ + start;
      open = false;
    }
  }
  if (!open) {
    std::size_t more = 0;
    const Status status = cut_all(data + start, size - start, threads, fed_ + start, ends + written, &more);
    if (!status.ok()) return status;
    written += more;
  }
  open_ = written == 0 ? open_ + size : static_cast<std::size_t>(fed_ + size - ends[written - 1]);
  if (size >= 64) {
    std::memcpy(recent_, data + size - 64, 64);
  } else {
    std::memmove(recent_, recent_ + size, 64 - size);
    std::memcpy(recent_ + 64 - size, data, size);
  }
  fed_ += size;
  *count = written;
  return {};
}

bool Chunker::finish(std::uint64_t* end) noexcept {
  const bool open = open_ != 0;
  *end = fed_;
  *this = Chunker{};
  return open;
}

}  // namespace textnlp_fast

// Content-defined chunking with the parameters of the public Xet protocol: a chunk ends behind the byte at which the
// Gear hash h = (h << 1) + T[byte] mod 2^64 has its top 16 bits zero, once it has 8 KiB; at the latest at 128 KiB, or
// with the data. One target size, 64 KiB. The result depends on the bytes only, never on threads, calls or processor.
#pragma once
#include <cstddef>
#include <cstdint>

#include "textnlp_fast/status.h"

namespace textnlp_fast {

inline constexpr std::size_t kMinChunkBytes = 8192;
inline constexpr std::size_t kMaxChunkBytes = 131072;

// Most chunks that `size_bytes` can have: the capacity that `chunk_boundaries` never outgrows.
constexpr std::size_t max_chunks(std::size_t size_bytes) noexcept { return size_bytes / kMinChunkBytes + 1; }

// Writes the end offsets (exclusive) of the chunks of data[0, size) to `ends`, ascending, the last one being `size`,
// and their number to `count`; empty data has none. Runs on up to `threads` threads (0: all). Fails with
// invalid_argument if `capacity` is too small, with out_of_memory if working memory is refused.
Status chunk_boundaries(const std::uint8_t* data, std::size_t size, unsigned threads, std::uint64_t* ends,
                        std::size_t capacity, std::size_t* count) noexcept;

// The same for data that comes in pieces, however cut. A plain value: copy it to branch off.
class Chunker {
 public:
  // Takes the next bytes; writes the ends, as offsets from the first byte ever fed, of the chunks that are now
  // complete. `capacity` must be at least max_chunks(size). On failure nothing is taken.
  Status feed(const std::uint8_t* data, std::size_t size, unsigned threads, std::uint64_t* ends, std::size_t capacity,
              std::size_t* count) noexcept;

  // Ends the last chunk, if one is open: its end is `bytes_fed()`. The chunker then stands at the start of new data.
  bool finish(std::uint64_t* end) noexcept;

  [[nodiscard]] std::uint64_t bytes_fed() const noexcept { return fed_; }

 private:
  std::uint64_t fed_ = 0;
  std::size_t open_ = 0;          // bytes of the chunk that has no end yet: fewer than kMaxChunkBytes
  std::uint8_t recent_[64] = {};  // the last bytes fed, oldest first; as many as were fed count
};

}  // namespace textnlp_fast

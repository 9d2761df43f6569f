// The Xet protocol's file hash (https://huggingface.co/docs/xet): keyed BLAKE3 over chunks, text lines for the inner
// nodes, and groups whose ends are chosen by the hashes, so that an insertion changes few nodes.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "textnlp_fast/chunk.h"
#include "textnlp_fast/hash.h"

namespace textnlp_fast {
namespace {

// Keys of the protocol: for chunks, for inner nodes, and for the file.
constexpr Digest kChunkKey = {102, 151, 245, 119, 91,  149, 80, 222, 49,  53,  203, 172, 165, 151, 24,  28,
                              157, 228, 33,  16,  155, 235, 43, 88,  180, 208, 176, 75,  147, 173, 242, 41};
constexpr Digest kNodeKey = {1,  126, 197, 199, 165, 71,  41,  150, 253, 148, 102, 102, 180, 138, 2,   230,
                             93, 221, 83,  111, 55,  199, 109, 210, 248, 99,  82,  230, 74,  83,  113, 63};
constexpr Digest kFileKey = {};

constexpr std::size_t kMostChildren = 9;
constexpr std::size_t kLeastCutIndex = 2;
constexpr std::uint64_t kCutDivisor = 4;

// What is cut, then hashed: bounds the list of ends. A window that stays in a cache would be hashed no faster, for the
// hash is bound by arithmetic, and cut more slowly, for the chunker's lanes idle at the end of each.
constexpr std::size_t kWindowBytes = std::size_t{64} << 20;
static_assert(kWindowBytes > 2 * kMaxChunkBytes);

std::uint64_t word(const Digest& digest, std::size_t index) noexcept {
  std::uint64_t value;
  std::memcpy(&value, digest.data() + 8 * index, sizeof value);
  return value;
}

Status check_ends(const std::uint64_t* ends, std::size_t count, std::uint64_t size_bytes) noexcept {
  std::uint64_t start = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (ends[i] <= start || ends[i] > size_bytes) {
      return Status::failure(Code::invalid_argument,
                             "chunk ends must rise strictly and stay within the data; pass what boundaries() returns");
    }
    start = ends[i];
  }
  return {};
}

}  // namespace

void xet_hex(const Digest& digest, char (&out)[64]) noexcept {
  constexpr char digits[] = "0123456789abcdef";
  for (std::size_t index = 0; index < 4; ++index) {
    const std::uint64_t value = word(digest, index);
    for (std::size_t i = 0; i < 16; ++i) out[16 * index + i] = digits[(value >> (60 - 4 * i)) & 15];
  }
}

const Digest& XetHasher::chunk_key() noexcept { return kChunkKey; }

Status XetHasher::add(const std::uint8_t* data, std::size_t size_bytes, const std::uint64_t* ends, std::size_t count,
                      unsigned threads) {
  const Status rising = check_ends(ends, count, size_bytes);
  if (!rising.ok() || count == 0) return rising;
  try {
    std::vector<Digest> hashes(count);
    const Status status = blake3_keyed_spans(kChunkKey, data, size_bytes, ends, count, hashes.data(), threads);
    return status.ok() ? add_hashed(hashes.data(), ends, count) : status;
  } catch (const std::exception&) {
    return Status::failure(Code::out_of_memory, "no memory for the list of chunk hashes");
  }
}

Status XetHasher::add_hashed(const Digest* hashes, const std::uint64_t* ends, std::size_t count) {
  const Status rising = check_ends(ends, count, std::numeric_limits<std::uint64_t>::max());
  if (!rising.ok()) return rising;
  const std::size_t before = leaves_.size();
  try {
    leaves_.resize(before + count);
  } catch (const std::exception&) {
    return Status::failure(Code::out_of_memory, "no memory for the list of chunk hashes");
  }
  for (std::size_t i = 0; i < count; ++i) leaves_[before + i] = {hashes[i], ends[i] - (i == 0 ? 0 : ends[i - 1])};
  return {};
}

Status XetHasher::take(const std::uint8_t* data, std::size_t size_bytes, bool last, unsigned threads,
                       std::size_t* taken) {
  *taken = 0;
  const std::size_t capacity = max_chunks(std::min(kWindowBytes, size_bytes));
  const std::unique_ptr<std::uint64_t[]> ends(new (std::nothrow) std::uint64_t[capacity]);
  if (ends == nullptr) return Status::failure(Code::out_of_memory, "no memory for the chunk ends");
  while (*taken < size_bytes) {
    const std::size_t size = std::min(kWindowBytes, size_bytes - *taken);
    const bool finished = last && *taken + size == size_bytes;
    std::size_t count = 0;
    const std::uint8_t* const from = data + *taken;
    Status status = chunk_boundaries(from, size, threads, ends.get(), capacity, &count);
    if (!status.ok()) return status;
    // The last chunk was cut by the end of the window, not by its content: a later window has all of it.
    if (!finished) --count;
    if (count == 0) break;
    status = add(from, size, ends.get(), count, threads);
    if (!status.ok()) return status;
    *taken += static_cast<std::size_t>(ends[count - 1]);
  }
  return {};
}

XetHasher::Entry XetHasher::parent(const Entry* children, std::size_t count) {
  // 64 digits, " : ", at most 20 digits, a newline.
  char text[kMostChildren * (64 + 3 + 20 + 1)];
  char* at = text;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    char hex[64];
    xet_hex(children[i].hash, hex);
    std::memcpy(at, hex, sizeof hex);
    std::memcpy(at + sizeof hex, " : ", 3);  // NOLINT(bugprone-not-null-terminated-result): no string yet
    at = std::to_chars(at + sizeof hex + 3, text + sizeof text, children[i].size_bytes).ptr;
    *at++ = '\n';
    total += children[i].size_bytes;
  }
  return {blake3_keyed(kNodeKey, text, static_cast<std::size_t>(at - text), 1), total};
}

Digest XetHasher::digest() const {
  if (leaves_.empty()) return Digest{};
  std::vector<Entry> level = leaves_;
  while (level.size() > 1) {
    // A parent is written where its first child stood or before, so one list serves both levels.
    std::size_t parents = 0;
    for (std::size_t first = 0; first < level.size();) {
      const std::size_t left = level.size() - first;
      std::size_t count = std::min(left, kMostChildren);
      for (std::size_t i = kLeastCutIndex; i < count; ++i) {
        if (word(level[first + i].hash, 3) % kCutDivisor == 0) count = i + 1;
      }
      level[parents++] = parent(level.data() + first, count);
      first += count;
    }
    level.resize(parents);
  }
  return blake3_keyed(kFileKey, level[0].hash.data(), kDigestBytes, 1);
}

}  // namespace textnlp_fast

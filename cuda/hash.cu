// BLAKE3 of device memory: many spans in one go.
//
// A thread hashes a group of eight chunks, one after the other, down to one chaining value: its 8 KiB stream through
// registers, and what goes to memory is four thousandths. A warp takes 32 groups that follow each other, of as many
// spans as they are of: spans of 64 KiB keep it as busy as one of a gigabyte. A block then joins the values of a span,
// level by level: neighbours in pairs, an odd one goes up as it is, which is the tree of BLAKE3.
#include <cstring>

#include "cuda/frames.h"
#include "cuda/memory.h"
#include "cuda/pieces.h"
#include "cuda/simt.h"
#include "hash/compress.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kGroupChunks = 8;
constexpr std::size_t kGroupBytes = kGroupChunks * kChunkBytes;
constexpr std::size_t kCounterBytes = 16;

struct Value {
  std::uint32_t h[8];
};

// What every chunk and every join starts from, and the flags that they all carry.
struct Start {
  Value value;
  std::uint32_t flags;
};

Start start_of(const std::uint8_t* key) {
  Start start{};
  if (key == nullptr) {
    for (unsigned w = 0; w < 8; ++w) start.value.h[w] = kInitial[w];
    return start;
  }
  std::memcpy(start.value.h, key, sizeof start.value.h);
  start.flags = kKeyed;
  return start;
}

TEXTNLP_FAST_DEVICE void load_block(const std::uint8_t* at, std::uint32_t bytes, std::uint32_t (&m)[16]) {
  struct alignas(16) Vector {
    std::uint32_t words[4];
  };
  if (bytes == kBlockBytes && device::aligned<Vector>(at)) {
    TEXTNLP_FAST_UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      const Vector four = reinterpret_cast<const Vector*>(at)[i];
      for (unsigned k = 0; k < 4; ++k) m[4 * i + k] = four.words[k];
    }
    return;
  }
  TEXTNLP_FAST_UNROLL
  for (unsigned w = 0; w < 16; ++w) {
    m[w] = 0;
    if (4 * w + 4 <= bytes) {
      m[w] = device::load<std::uint32_t>(at, w);
    } else {
      for (unsigned b = 4 * w; b < bytes; ++b) m[w] |= static_cast<std::uint32_t>(at[b]) << (8 * (b % 4));
    }
  }
}

TEXTNLP_FAST_DEVICE Value parent_of(const Start& start, const Value& left, const Value& right, std::uint32_t root) {
  const std::uint32_t m[16] = {left.h[0],  left.h[1],  left.h[2],  left.h[3],  left.h[4],  left.h[5],
                               left.h[6],  left.h[7],  right.h[0], right.h[1], right.h[2], right.h[3],
                               right.h[4], right.h[5], right.h[6], right.h[7]};
  Value value = start.value;
  compress_words(value.h, m, kBlockBytes, 0, start.flags | kParent | root);
  return value;
}

// The value of chunk `number`, of 0 to 1024 bytes.
TEXTNLP_FAST_DEVICE Value chunk_value(const Start& start, const std::uint8_t* data, std::uint32_t bytes,
                                      std::uint64_t number, std::uint32_t root) {
  Value value = start.value;
  std::uint32_t m[16];
  std::uint32_t flags = start.flags | kChunkStart;
  for (; bytes > kBlockBytes; bytes -= kBlockBytes, data += kBlockBytes) {
    load_block(data, kBlockBytes, m);
    compress_words(value.h, m, kBlockBytes, number, flags);
    flags = start.flags;
  }
  load_block(data, bytes, m);
  compress_words(value.h, m, bytes, number, flags | kChunkEnd | root);
  return value;
}

// Joins the values of a group as its chunks come; what stands on the stack are whole subtrees, the largest below.
TEXTNLP_FAST_DEVICE Value group_value(const Start& start, const DeviceSpan& span, std::uint64_t group) {
  const std::uint64_t begin = group * kGroupBytes;
  const std::uint64_t left = span.size - begin;
  const auto bytes = static_cast<std::uint32_t>(left < kGroupBytes ? left : kGroupBytes);
  const std::uint32_t root = span.size <= kGroupBytes ? std::uint32_t{kRoot} : 0;
  const std::uint32_t last = bytes == 0 ? 0 : (bytes - 1) / kChunkBytes;
  Value stack[4];
  unsigned depth = 0;
  Value value{};
  for (std::uint32_t chunk = 0; chunk <= last; ++chunk) {
    const std::uint32_t from = chunk * kChunkBytes;
    const std::uint32_t size = bytes - from < kChunkBytes ? bytes - from : kChunkBytes;
    const std::uint64_t number = group * kGroupChunks + chunk;
    value = chunk_value(start, span.data_dev + begin + from, size, number, last == 0 ? root : 0);
    if (chunk == last) break;
    for (std::uint32_t whole = chunk + 1; whole % 2 == 0; whole /= 2)
      value = parent_of(start, stack[--depth], value, 0);
    stack[depth++] = value;
  }
  while (depth != 0) {
    --depth;
    value = parent_of(start, stack[depth], value, depth == 0 ? root : 0);
  }
  return value;
}

struct HashGroups {
  static constexpr unsigned kThreads = 128;
  Start start;
  const DeviceSpan* spans;
  std::size_t count;
  const std::uint64_t* groups_before;
  unsigned long long* next;  // 0 at the start
  Value* values;
  std::uint64_t room;  // values

  TEXTNLP_FAST_DEVICE void operator()() const {
    const std::uint64_t groups = groups_before[count] < room ? groups_before[count] : room;
    for (;;) {
      unsigned long long first = 0;
      if (simt::lane() == 0) first = simt::atomic_add(next, static_cast<unsigned long long>(simt::kWarp));
      first = simt::shuffle(first, 0);
      if (first >= groups) return;
      const std::uint64_t group = first + simt::lane();
      if (group < groups) {
        const std::size_t n = device::span_of(groups_before, count, group);
        values[group] = group_value(start, spans[n], group - groups_before[n]);
      }
      simt::sync_warp();
    }
  }
};

struct JoinGroups {
  static constexpr unsigned kThreads = 256;
  Start start;
  std::size_t count;
  const std::uint64_t* groups_before;
  Value* values;
  std::uint64_t room;
  std::uint8_t* digests;

  // Half as many values from `at` on, and one more if they were odd.
  TEXTNLP_FAST_DEVICE void join_level(Value* at, std::uint64_t groups) const {
    const std::uint32_t root = groups == 2 ? std::uint32_t{kRoot} : 0;
    const std::uint64_t made = (groups + 1) / 2;
    for (std::uint64_t first = 0; first < made; first += simt::block_threads()) {
      const std::uint64_t i = first + simt::thread();
      Value value{};
      if (i < made) value = 2 * i + 1 < groups ? parent_of(start, at[2 * i], at[2 * i + 1], root) : at[2 * i];
      // Others read what this one overwrites, but only in this round: later ones read further on.
      simt::sync_block();
      if (i < made) at[i] = value;
      simt::sync_block();
    }
  }

  TEXTNLP_FAST_DEVICE void operator()() const {
    for (std::size_t n = simt::block(); n < count; n += simt::blocks()) {
      const std::uint64_t groups = groups_before[n + 1] - groups_before[n];
      if (groups_before[n + 1] > room) continue;
      Value* const at = values + groups_before[n];
      for (std::uint64_t left = groups; left > 1; left = (left + 1) / 2) join_level(at, left);
      if (simt::thread() == 0) {
        const Value digest = groups == 0 ? chunk_value(start, nullptr, 0, 0, kRoot) : at[0];
        for (unsigned w = 0; w < 8; ++w) device::store<std::uint32_t>(digests + n * 32, w, digest.h[w]);
      }
      simt::sync_block();
    }
  }
};

std::size_t rounded(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

Status hash_spans(const Start& start, const DeviceSpan* spans_dev, std::size_t count, std::uint64_t total_bytes,
                  void* workspace_dev, std::size_t workspace_size, std::uint8_t* digests_dev, void* stream) noexcept {
  if (workspace_size < cuda_blake3_workspace(count, total_bytes) ||
      reinterpret_cast<std::uintptr_t>(workspace_dev) % 16 != 0) {
    return Status::failure(Code::invalid_argument, "the workspace is too small or not aligned to 16 bytes");
  }
  if (count == 0) return {};
  auto* const bytes = static_cast<std::uint8_t*>(workspace_dev);
  const std::size_t table = rounded((count + 1) * sizeof(std::uint64_t));
  auto* const next = reinterpret_cast<unsigned long long*>(bytes);
  auto* const groups_before = reinterpret_cast<std::uint64_t*>(bytes + kCounterBytes);
  auto* const values = reinterpret_cast<Value*>(bytes + kCounterBytes + table);
  const std::uint64_t room = total_bytes / kGroupBytes + count;

  Status status = simt::fill(workspace_dev, 0, kCounterBytes, stream);
  const device::CountPieces<DeviceSpan> groups{spans_dev, count, kGroupBytes, groups_before};
  if (status.ok()) status = simt::launch(groups, 1, 0, stream);
  std::size_t blocks = 0;
  if (status.ok()) status = simt::resident_blocks<HashGroups>(0, &blocks);
  const HashGroups hash{start, spans_dev, count, groups_before, next, values, room};
  if (status.ok()) status = simt::launch(hash, blocks, 0, stream);
  constexpr std::size_t kMostBlocks = 1 << 15;
  const JoinGroups join{start, count, groups_before, values, room, digests_dev};
  if (status.ok()) status = simt::launch(join, count < kMostBlocks ? count : kMostBlocks, 0, stream);
  return status;
}

Status hash_spans_now(const std::uint8_t* key, const DeviceSpan* spans, std::size_t count, std::uint8_t* digests,
                      void* stream) noexcept {
  if (count == 0) return {};
  std::uint64_t total = 0;
  for (std::size_t n = 0; n < count; ++n) total += spans[n].size;
  const std::size_t list = rounded(count * sizeof(DeviceSpan));
  const std::size_t made = rounded(count * kValueBytes);
  const std::size_t workspace = cuda_blake3_workspace(count, total);
  simt::DeviceMemory memory(stream);
  Status status = memory.allocate(list + made + workspace);
  if (!status.ok()) return status;
  auto* const spans_dev = reinterpret_cast<DeviceSpan*>(memory.data());
  std::uint8_t* const digests_dev = memory.data() + list;
  status = simt::to_device(spans_dev, spans, count * sizeof(DeviceSpan), stream);
  if (status.ok()) {
    status =
        hash_spans(start_of(key), spans_dev, count, total, memory.data() + list + made, workspace, digests_dev, stream);
  }
  if (status.ok()) status = simt::to_host(digests, digests_dev, count * kValueBytes, stream);
  const Status waited = simt::wait(stream);
  return status.ok() ? waited : status;
}

}  // namespace

std::size_t cuda_blake3_workspace(std::size_t count, std::uint64_t total_bytes) noexcept {
  const std::size_t table = rounded((count + 1) * sizeof(std::uint64_t));
  return kCounterBytes + table + (static_cast<std::size_t>(total_bytes / kGroupBytes) + count) * sizeof(Value);
}

Status cuda_blake3(const DeviceSpan* spans_dev, std::size_t count, std::uint64_t total_bytes, void* workspace_dev,
                   std::size_t workspace_size, std::uint8_t* digests_dev, void* stream) noexcept {
  return hash_spans(start_of(nullptr), spans_dev, count, total_bytes, workspace_dev, workspace_size, digests_dev,
                    stream);
}

Status cuda_blake3_now(const DeviceSpan* spans, std::size_t count, std::uint8_t* digests, void* stream) noexcept {
  return hash_spans_now(nullptr, spans, count, digests, stream);
}

Status cuda_blake3_keyed(const std::uint8_t* key, const DeviceSpan* spans_dev, std::size_t count,
                         std::uint64_t total_bytes, void* workspace_dev, std::size_t workspace_size,
                         std::uint8_t* digests_dev, void* stream) noexcept {
  return hash_spans(start_of(key), spans_dev, count, total_bytes, workspace_dev, workspace_size, digests_dev, stream);
}

Status cuda_blake3_keyed_now(const std::uint8_t* key, const DeviceSpan* spans, std::size_t count, std::uint8_t* digests,
                             void* stream) noexcept {
  return hash_spans_now(key, spans, count, digests, stream);
}

}  // namespace textnlp_fast

// Many hashes side by side. A span of some sixty leaves alone leaves lanes empty at its end and in the upper levels of
// its tree, so the leaves of neighbouring spans are listed together, and then their parents, level by level.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "cpu/kernels.h"
#include "hash/hash_constants.h"
#include "textnlp_fast/cpu.h"
#include "textnlp_fast/hash.h"
#include "thread/parallel.h"

namespace textnlp_fast {
namespace {

// Leaves of the spans hashed together: enough for the roots to fill a vector too, few enough for their values and
// bytes to stay in the second-level cache. A span of more is hashed alone.
constexpr std::size_t kGroupLeaves = 1024;
constexpr std::size_t kSmallestGroupLeaves = 128;
constexpr std::size_t kLeavesPerThread = 512;

struct Span {
  const std::uint8_t* bytes;
  std::size_t size_bytes;

  [[nodiscard]] std::size_t whole() const noexcept { return size_bytes / kChunkBytes; }
  // Bytes and blocks of the leaf that is not whole; an empty span is one empty block.
  [[nodiscard]] std::size_t rest() const noexcept { return size_bytes % kChunkBytes; }
  [[nodiscard]] bool has_rest() const noexcept { return rest() > 0 || size_bytes == 0; }
  [[nodiscard]] std::size_t rest_blocks() const noexcept { return rest() == 0 ? 1 : (rest() - 1) / kBlockBytes + 1; }
  [[nodiscard]] std::size_t leaves() const noexcept { return whole() + (has_rest() ? 1 : 0); }
};

struct SpanList {
  const std::uint8_t* data;
  const std::uint64_t* ends;

  Span operator[](std::size_t index) const noexcept {
    const std::uint64_t begin = index == 0 ? 0 : ends[index - 1];
    return {data + begin, static_cast<std::size_t>(ends[index] - begin)};
  }
};

struct Range {
  std::size_t first;
  std::size_t last;  // exclusive
};

// The hashes of neighbouring spans, of kGroupLeaves leaves at most.
class Group {
 public:
  Group(const std::uint32_t* key, std::uint32_t flags, const SpanList& spans, Range range, Digest* digests) noexcept
      : key_(key), flags_(flags), spans_(spans), range_(range), digests_(digests) {}

  void hash() noexcept {
    const HashKernels& kernel = *kernels().hash;
    const std::size_t leaves = list_leaves();
    kernel.hash_each({key_, flags_, kChunkStart, kChunkEnd}, inputs_, leaves);
    while (tree_count_ > 0) {
      const std::size_t parents = list_parents();
      kernel.hash_each({key_, flags_ | kParent, 0, 0}, inputs_, parents);
      climb();
    }
  }

 private:
  // A tree in progress: its nodes of the current level lie in a row.
  struct Tree {
    std::uint8_t* values;
    std::size_t nodes;
    std::uint8_t* digest;
  };

  // Whole leaves first, in the order of the bytes, then the others by their number of blocks: lanes that stand together
  // are to end together.
  std::size_t list_leaves() noexcept {
    std::size_t place[kChunkBlocks + 1] = {};
    std::size_t whole = 0;
    for (std::size_t i = range_.first; i < range_.last; ++i) {
      const Span span = spans_[i];
      whole += span.whole();
      if (span.has_rest()) ++place[span.rest_blocks()];
    }
    std::size_t total = whole;
    for (std::size_t& number : place) {
      const std::size_t of_this_many_blocks = number;
      number = total;
      total += of_this_many_blocks;
    }
    std::uint8_t* value = values_;
    std::size_t next = 0;
    for (std::size_t i = range_.first; i < range_.last; ++i) {
      const Span span = spans_[i];
      const std::size_t leaves = span.leaves();
      std::uint8_t* out = value;
      std::uint32_t last_flags = 0;
      if (leaves == 1) {
        out = digests_[i].data();
        last_flags = kRoot;
      } else {
        trees_[tree_count_++] = {value, leaves, digests_[i].data()};
        value += leaves * kValueBytes;
      }
      const std::size_t of_span = span.whole();
      for (std::size_t leaf = 0; leaf < of_span; ++leaf) {
        inputs_[next++] = {span.bytes + leaf * kChunkBytes, out + leaf * kValueBytes, leaf, kChunkBytes, last_flags};
      }
      if (span.has_rest()) {
        inputs_[place[span.rest_blocks()]++] = {span.bytes + of_span * kChunkBytes, out + of_span * kValueBytes,
                                                of_span, static_cast<std::uint32_t>(span.rest()), last_flags};
      }
    }
    return total;
  }

  // One level of all trees. A parent is written where its first child stood or before.
  std::size_t list_parents() noexcept {
    std::size_t count = 0;
    for (std::size_t i = 0; i < tree_count_; ++i) {
      const Tree& tree = trees_[i];
      const bool root = tree.nodes == 2;
      for (std::size_t pair = 0; pair < tree.nodes / 2; ++pair) {
        inputs_[count++] = {tree.values + 2 * pair * kValueBytes, root ? tree.digest : tree.values + pair * kValueBytes,
                            0, kBlockBytes, root ? std::uint32_t{kRoot} : 0};
      }
    }
    return count;
  }

  // A node without a sibling goes up as it is: that makes every left subtree as large a power of two as it must be.
  void climb() noexcept {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < tree_count_; ++i) {
      Tree tree = trees_[i];
      if (tree.nodes % 2 == 1) {
        std::memcpy(tree.values + tree.nodes / 2 * kValueBytes, tree.values + (tree.nodes - 1) * kValueBytes,
                    kValueBytes);
      }
      tree.nodes = (tree.nodes + 1) / 2;
      if (tree.nodes > 1) trees_[kept++] = tree;
    }
    tree_count_ = kept;
  }

  const std::uint32_t* key_;
  std::uint32_t flags_;
  const SpanList& spans_;
  Range range_;
  Digest* digests_;
  std::size_t tree_count_ = 0;
  HashInput inputs_[kGroupLeaves];
  alignas(64) std::uint8_t values_[kGroupLeaves * kValueBytes];
  Tree trees_[kGroupLeaves / 2];
};

struct Plan {
  std::vector<Range> groups;
  std::vector<std::size_t> alone;
};

Plan plan(const SpanList& spans, std::size_t count, std::size_t group_leaves) {
  Plan result;
  Range range{0, 0};
  std::size_t leaves = 0;
  const auto close = [&](std::size_t next) {
    if (range.first < range.last) result.groups.push_back(range);
    range = {next, next};
    leaves = 0;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t more = spans[i].leaves();
    if (more > kGroupLeaves) {
      close(i + 1);
      result.alone.push_back(i);
      continue;
    }
    if (leaves + more > group_leaves) close(i);
    leaves += more;
    range.last = i + 1;
  }
  close(count);
  return result;
}

Status check_ends(const std::uint64_t* ends, std::size_t count, std::size_t size_bytes) noexcept {
  std::uint64_t start = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (ends[i] < start || ends[i] > size_bytes) {
      return Status::failure(Code::invalid_argument, "span ends must not fall and must stay within the data");
    }
    start = ends[i];
  }
  return {};
}

// `whole(bytes, size)` is the hash of a span alone, on all threads.
template <class Whole>
Status hash_spans(const std::uint32_t* key, std::uint32_t flags, const SpanList& spans, std::size_t size_bytes,
                  std::size_t count, Digest* digests, unsigned threads, Whole whole) {
  const Status status = check_ends(spans.ends, count, size_bytes);
  if (!status.ok() || count == 0) return status;
  const std::size_t leaves = count + static_cast<std::size_t>(spans.ends[count - 1]) / kChunkBytes;
  const std::size_t allowed = threads == 0 ? default_threads() : threads;
  const std::size_t workers = std::clamp<std::size_t>(leaves / kLeavesPerThread, 1, allowed);
  const std::size_t share = workers == 1 ? kGroupLeaves : leaves / (4 * workers);
  try {
    const Plan work = plan(spans, count, std::clamp(share, kSmallestGroupLeaves, kGroupLeaves));
    parallel_for(work.groups.size(), static_cast<unsigned>(workers), [&](std::size_t index) {
      Group group(key, flags, spans, work.groups[index], digests);
      group.hash();
    });
    for (const std::size_t index : work.alone) digests[index] = whole(spans[index]);
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory for the plan of the spans");
  }
  return {};
}

}  // namespace

Status blake3_spans(const void* data, std::size_t size_bytes, const std::uint64_t* ends, std::size_t count,
                    Digest* digests, unsigned threads) {
  return hash_spans(kInitial, 0, {static_cast<const std::uint8_t*>(data), ends}, size_bytes, count, digests, threads,
                    [threads](const Span& span) { return blake3(span.bytes, span.size_bytes, threads); });
}

Status blake3_keyed_spans(const Digest& key, const void* data, std::size_t size_bytes, const std::uint64_t* ends,
                          std::size_t count, Digest* digests, unsigned threads) {
  std::uint32_t words[8];
  std::memcpy(words, key.data(), sizeof words);
  return hash_spans(
      words, kKeyed, {static_cast<const std::uint8_t*>(data), ends}, size_bytes, count, digests, threads,
      [&key, threads](const Span& span) { return blake3_keyed(key, span.bytes, span.size_bytes, threads); });
}

}  // namespace textnlp_fast

// The tree of BLAKE3, level by level. Chunks are hashed side by side into an array of values; each level then halves
// the array, again side by side. Where a range of chunks starts or ends off a power of two, the nodes without a sibling
// are handed out instead, and the stack pairs them with what came before or comes later.
#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "cpu/kernels.h"
#include "hash/hash_constants.h"
#include "textnlp_fast/cpu.h"
#include "textnlp_fast/hash.h"
#include "thread/parallel.h"

namespace textnlp_fast {
namespace {

static_assert(std::endian::native == std::endian::little, "chaining values are kept as little-endian words");
static_assert(sizeof(Digest) == kValueBytes);

// Chunks of one piece of work: its values fit the first-level cache, and its tree is nearly all full vectors.
constexpr std::size_t kPieceChunks = 512;
constexpr std::size_t kSmallestPieceChunks = 64;
// A thread is started for no less than this; below, starting it costs more than it saves.
constexpr std::size_t kChunksPerThread = 1024;
// Pieces whose results are held at a time, in all and for each thread: bounds memory on inputs of any size.
constexpr std::size_t kBatchPieces = 128;
constexpr std::size_t kBatchPiecesPerThread = 16;

HashNode chunk_node(const std::uint32_t* key, std::uint32_t flags, std::uint32_t last_flags = 0) noexcept {
  return {key, flags, kChunkStart, kChunkEnd | last_flags};
}

// Lists `count` inputs of `size_bytes` bytes that lie in a row; so will their values, at `out`.
void list_inputs(const std::uint8_t* bytes, std::uint32_t size_bytes, std::size_t count, std::uint64_t counter,
                 std::uint64_t counter_step, std::uint8_t* out, HashInput* inputs) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    inputs[i] = {bytes + i * size_bytes, out + i * kValueBytes, counter + i * counter_step, size_bytes, 0};
  }
}

std::size_t piece_chunks(std::size_t count, std::size_t workers) noexcept {
  std::size_t piece = kPieceChunks;
  while (workers > 1 && piece > kSmallestPieceChunks && count / piece < 8 * workers) piece /= 2;
  return piece;
}

// Chunks of the largest subtree that starts at chunk `begin` and ends at `end` or before.
std::uint64_t subtree_chunks(std::uint64_t begin, std::uint64_t end) noexcept {
  const std::uint64_t fitting = std::bit_floor(end - begin);
  return begin == 0 ? fitting : std::min(fitting, begin & (~begin + 1));
}

// How many subtrees the chunks from `begin` to `end` consist of.
std::uint32_t subtree_count(std::uint64_t begin, std::uint64_t end) noexcept {
  std::uint32_t count = 0;
  for (; begin < end; begin += subtree_chunks(begin, end)) ++count;
  return count;
}

}  // namespace

// The roots of the subtrees that a range of chunks consists of, in order. Sizes rise, then fall, by powers of two.
struct Blake3::Nodes {
  static constexpr std::size_t kCapacity = 2 * (std::bit_width(kPieceChunks) + 1);
  std::size_t count;
  std::uint32_t chunks[kCapacity];
  std::uint8_t value[kCapacity][kValueBytes];

  void append(const std::uint8_t* from, std::uint32_t size) noexcept {
    std::memcpy(value[count], from, kValueBytes);
    chunks[count++] = size;
  }
};

Blake3::Blake3(const std::uint32_t (&key)[8], std::uint32_t flags) noexcept : flags_(flags) {
  std::memcpy(key_, key, sizeof key_);
}

Blake3::Blake3() noexcept : Blake3(kInitial, 0) {}

Blake3::Blake3(const Digest& key) noexcept : flags_(kKeyed) { std::memcpy(key_, key.data(), sizeof key_); }

Blake3 Blake3::derive_key(std::string_view context) {
  Blake3 hasher(kInitial, kDeriveKeyContext);
  hasher.update(context.data(), context.size(), 1);
  Blake3 result(hasher.digest());
  result.flags_ = kDeriveKeyMaterial;
  return result;
}

void Blake3::join(const std::uint8_t* left, const std::uint8_t* right, std::uint32_t root,
                  std::uint8_t* out) const noexcept {
  std::uint8_t block[kBlockBytes];
  std::memcpy(block, left, kValueBytes);
  std::memcpy(block + kValueBytes, right, kValueBytes);
  kernels().hash->hash_one({key_, flags_ | kParent, 0, root}, block, sizeof block, 0, out);
}

// A finished tree of n chunks has one node on the stack for each one bit of n. The newest nodes are left unmerged until
// something follows them, for the last merge of all is the root's and differs.
void Blake3::merge() noexcept {
  const std::uint32_t finished = subtree_count(base_, chunks_);
  while (depth_ > finished) {
    join(stack_[depth_ - 2], stack_[depth_ - 1], 0, stack_[depth_ - 2]);
    --depth_;
  }
}

void Blake3::push(const std::uint8_t* value, std::uint64_t chunks) noexcept {
  merge();
  std::memcpy(stack_[depth_++], value, kValueBytes);
  chunks_ += chunks;
}

void Blake3::push(const Nodes& nodes) noexcept {
  for (std::size_t i = 0; i < nodes.count; ++i) push(nodes.value[i], nodes.chunks[i]);
}

// Hashes `count` (1 to kPieceChunks) chunks, the first of which is number `first` of the input.
void Blake3::hash_piece(const std::uint8_t* data, std::uint64_t first, std::size_t count, Nodes& out) const noexcept {
  const HashKernels& kernel = *kernels().hash;
  const HashNode parents = {key_, flags_ | kParent, 0, 0};
  alignas(64) std::uint8_t values[kPieceChunks * kValueBytes];
  HashInput inputs[kPieceChunks];
  list_inputs(data, kChunkBytes, count, first, 1, values, inputs);
  kernel.hash_each(chunk_node(key_, flags_), inputs, count);
  std::uint8_t* level = values;
  std::uint32_t chunks = 1;
  Nodes right;
  right.count = 0;
  out.count = 0;
  // At number 0 two nodes remain, for they may be the children of the root.
  while (count > 1 && !(first == 0 && count == 2)) {
    if (first % 2 == 1) {
      out.append(level, chunks);
      level += kValueBytes;
      ++first;
      --count;
    }
    if (count % 2 == 1) right.append(level + --count * kValueBytes, chunks);
    count /= 2;
    first /= 2;
    chunks *= 2;
    list_inputs(level, kBlockBytes, count, 0, 0, level, inputs);
    kernel.hash_each(parents, inputs, count);
  }
  for (std::size_t i = 0; i < count; ++i) out.append(level + i * kValueBytes, chunks);
  while (right.count > 0) {
    --right.count;
    out.append(right.value[right.count], right.chunks[right.count]);
  }
}

void Blake3::hash_chunks(const std::uint8_t* data, std::size_t count, unsigned threads) {
  const std::size_t allowed = threads == 0 ? default_threads() : threads;
  const std::size_t workers = std::max<std::size_t>(1, std::min(allowed, count / kChunksPerThread));
  const std::size_t piece = piece_chunks(count, workers);
  // Piece i ends at the i-th multiple of `piece` behind the first chunk: all but the outer two are whole subtrees.
  const std::uint64_t first = chunks_;
  const std::size_t offset = static_cast<std::size_t>(first % piece);
  const std::size_t pieces = (offset + count + piece - 1) / piece;
  auto hash = [&](std::size_t index, Nodes& out) {
    const std::size_t begin = index == 0 ? 0 : index * piece - offset;
    const std::size_t end = std::min(count, (index + 1) * piece - offset);
    hash_piece(data + begin * kChunkBytes, first + begin, end - begin, out);
  };
  if (workers == 1) {
    Nodes nodes;
    for (std::size_t index = 0; index < pieces; ++index) {
      hash(index, nodes);
      push(nodes);
    }
    return;
  }
  const std::size_t most = std::min(pieces, std::max(kBatchPieces, kBatchPiecesPerThread * workers));
  const auto results = std::make_unique_for_overwrite<Nodes[]>(most);
  for (std::size_t start = 0; start < pieces; start += most) {
    const std::size_t batch = std::min(most, pieces - start);
    parallel_for(batch, static_cast<unsigned>(workers), [&](std::size_t i) { hash(start + i, results[i]); });
    for (std::size_t i = 0; i < batch; ++i) push(results[i]);
  }
}

void Blake3::update(const void* data, std::size_t size_bytes, unsigned threads) {
  if (size_bytes == 0) return;
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  if (pending_bytes_ > 0) {
    const std::size_t taken = std::min(size_bytes, kChunkBytes - pending_bytes_);
    std::memcpy(pending_ + pending_bytes_, bytes, taken);
    pending_bytes_ += taken;
    bytes += taken;
    size_bytes -= taken;
    if (size_bytes == 0) return;
    // More follows, so this chunk is not the last.
    std::uint8_t value[kValueBytes];
    kernels().hash->hash_one(chunk_node(key_, flags_), pending_, kChunkBytes, chunks_, value);
    push(value, 1);
    pending_bytes_ = 0;
  }
  // A lone chunk may be the root; any other whole chunk is not.
  const std::size_t whole = chunks_ == 0 && size_bytes <= kChunkBytes ? 0 : size_bytes / kChunkBytes;
  if (whole > 0) hash_chunks(bytes, whole, threads);
  pending_bytes_ = size_bytes - whole * kChunkBytes;
  if (pending_bytes_ > 0) std::memcpy(pending_, bytes + whole * kChunkBytes, pending_bytes_);
}

Digest Blake3::digest() const noexcept {
  Digest result;
  std::uint8_t* out = result.data();
  if (depth_ == 0) {
    kernels().hash->hash_one(chunk_node(key_, flags_, kRoot), pending_, pending_bytes_, 0, out);
    return result;
  }
  Blake3 rest = *this;
  if (pending_bytes_ > 0) {
    std::uint8_t value[kValueBytes];
    kernels().hash->hash_one(chunk_node(key_, flags_), pending_, pending_bytes_, chunks_, value);
    rest.push(value, 1);
  }
  // From the right: every node is the right sibling of all that stands before it. Two are there at least.
  std::memcpy(out, rest.stack_[--rest.depth_], kValueBytes);
  while (rest.depth_ > 0) {
    --rest.depth_;
    join(rest.stack_[rest.depth_], out, rest.depth_ == 0 ? std::uint32_t{kRoot} : 0, out);
  }
  return result;
}

Digest hash_whole(Blake3& fresh, const void* data, std::size_t size_bytes, unsigned threads) {
  if (size_bytes <= kChunkBytes) {
    Digest result;
    kernels().hash->hash_one(chunk_node(fresh.key_, fresh.flags_, kRoot), static_cast<const std::uint8_t*>(data),
                             size_bytes, 0, result.data());
    return result;
  }
  fresh.update(data, size_bytes, threads);
  return fresh.digest();
}

Digest blake3(const void* data, std::size_t size_bytes, unsigned threads) {
  Blake3 hasher;
  return hash_whole(hasher, data, size_bytes, threads);
}

Digest blake3_keyed(const Digest& key, const void* data, std::size_t size_bytes, unsigned threads) {
  Blake3 hasher(key);
  return hash_whole(hasher, data, size_bytes, threads);
}

Blake3Piece::Blake3Piece(std::uint64_t first_chunk) noexcept { hasher_.base_ = hasher_.chunks_ = first_chunk; }

void Blake3Piece::update(const void* data, std::size_t size_bytes, unsigned threads) {
  hasher_.update(data, size_bytes, threads);
}

std::vector<Digest> Blake3Piece::values() const {
  Blake3 rest = hasher_;
  if (rest.pending_bytes_ > 0) {
    std::uint8_t value[kValueBytes];
    kernels().hash->hash_one(chunk_node(rest.key_, rest.flags_), rest.pending_, rest.pending_bytes_, rest.chunks_,
                             value);
    rest.push(value, 1);
  }
  rest.merge();
  std::vector<Digest> result(rest.depth_);
  if (!result.empty()) std::memcpy(result.data(), rest.stack_, result.size() * kValueBytes);
  return result;
}

Status blake3_join(const Digest* values, std::size_t count, std::uint64_t size_bytes, std::uint64_t piece_bytes,
                   Digest* digest) {
  if (piece_bytes == 0 || piece_bytes % kChunkBytes != 0) {
    return Status::failure(Code::invalid_argument, "pieces of an input must be whole chunks of 1024 bytes");
  }
  if (size_bytes <= piece_bytes) {
    return Status::failure(Code::invalid_argument, "an input of one piece has a digest of its own");
  }
  const std::uint64_t chunks = (size_bytes - 1) / kChunkBytes + 1;
  const std::uint64_t piece = piece_bytes / kChunkBytes;
  Blake3 whole;
  std::size_t used = 0;
  for (std::uint64_t begin = 0; begin < chunks;) {
    const std::uint64_t end = chunks - begin < piece ? chunks : begin + piece;
    while (begin < end) {
      if (used == count) return Status::failure(Code::invalid_argument, "pieces of an input lack values");
      const std::uint64_t some = subtree_chunks(begin, end);
      whole.push(values[used++].data(), some);
      begin += some;
    }
  }
  if (used != count) return Status::failure(Code::invalid_argument, "pieces of an input have too many values");
  *digest = whole.digest();
  return Status();
}

void blake3_chunk_values(const void* chunks, std::size_t count, std::uint64_t first, std::uint8_t* out) noexcept {
  const auto* bytes = static_cast<const std::uint8_t*>(chunks);
  HashInput inputs[kPieceChunks];
  for (std::size_t done = 0; done < count; done += kPieceChunks) {
    const std::size_t some = std::min(count - done, kPieceChunks);
    list_inputs(bytes + done * kChunkBytes, kChunkBytes, some, first + done, 1, out + done * kValueBytes, inputs);
    kernels().hash->hash_each(chunk_node(kInitial, 0), inputs, some);
  }
}

}  // namespace textnlp_fast

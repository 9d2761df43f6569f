// BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs) and the file hash of the Xet protocol that is built on it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "textnlp_fast/status.h"

namespace textnlp_fast {

inline constexpr std::size_t kDigestBytes = 32;
using Digest = std::array<std::uint8_t, kDigestBytes>;

// A BLAKE3 hash in progress, in any number of pieces. Large pieces go at the speed of the one-shot call. Copies are
// independent. One object is not to be used by two threads at once; the `threads` of a call are its own.
class Blake3 {
 public:
  Blake3() noexcept;                            // the plain hash
  explicit Blake3(const Digest& key) noexcept;  // the keyed hash (a MAC)

  // Derives keys from the material it is fed. `context` is a constant of the application, never a secret.
  static Blake3 derive_key(std::string_view context);

  // Feeds `size_bytes` bytes of host memory, on at most `threads` threads (0: default_threads(); small pieces use
  // fewer). Throws std::bad_alloc; the object is then spent.
  void update(const void* data, std::size_t size_bytes, unsigned threads = 0);

  // The digest of all that was fed so far; more may follow.
  [[nodiscard]] Digest digest() const noexcept;

 private:
  friend class Blake3Piece;
  friend Status blake3_join(const Digest* values, std::size_t count, std::uint64_t size_bytes,
                            std::uint64_t piece_bytes, Digest* digest);
  friend Digest hash_whole(Blake3& fresh, const void* data, std::size_t size_bytes, unsigned threads);
  struct Nodes;
  static constexpr std::size_t kStackDepth = 112;  // sizes of a piece's subtrees may rise and fall again

  Blake3(const std::uint32_t (&key)[8], std::uint32_t flags) noexcept;
  void hash_piece(const std::uint8_t* data, std::uint64_t first, std::size_t count, Nodes& out) const noexcept;
  void hash_chunks(const std::uint8_t* data, std::size_t count, unsigned threads);
  void push(const std::uint8_t* value, std::uint64_t chunks) noexcept;
  void push(const Nodes& nodes) noexcept;
  void merge() noexcept;
  void join(const std::uint8_t* left, const std::uint8_t* right, std::uint32_t root, std::uint8_t* out) const noexcept;

  std::uint32_t key_[8];
  std::uint32_t flags_;
  std::uint32_t depth_ = 0;
  std::uint64_t base_ = 0;    // number of the first chunk: not 0 in a piece of an input only
  std::uint64_t chunks_ = 0;  // number of the first chunk behind the nodes on the stack
  std::size_t pending_bytes_ = 0;
  std::uint8_t pending_[1024];           // the chunk that may be the last
  std::uint8_t stack_[kStackDepth][32];  // roots of finished subtrees, largest first
};

// One-shot: the digest of `size_bytes` bytes at `data`.
Digest blake3(const void* data, std::size_t size_bytes, unsigned threads = 0);
Digest blake3_keyed(const Digest& key, const void* data, std::size_t size_bytes, unsigned threads = 0);

// The digests of the spans data[0, ends[0]), data[ends[0], ends[1]), ... as the calls above give them, at `digests`:
// many small hashes at the speed of a large one. `ends` must not fall and must stay within `size_bytes`; a span may be
// empty, and bytes behind the last end are not hashed. Fails with invalid_argument (nothing is written) or
// out_of_memory.
Status blake3_spans(const void* data, std::size_t size_bytes, const std::uint64_t* ends, std::size_t count,
                    Digest* digests, unsigned threads = 0);
Status blake3_keyed_spans(const Digest& key, const void* data, std::size_t size_bytes, const std::uint64_t* ends,
                          std::size_t count, Digest* digests, unsigned threads = 0);

// A piece of an input that is hashed by itself: out of order, on another thread, in another process. Pieces start at
// multiples of 1024 bytes; blake3_join() makes the digest of the whole of what they leave.
class Blake3Piece {
 public:
  explicit Blake3Piece(std::uint64_t first_chunk) noexcept;  // the piece starts at byte 1024 * first_chunk

  // As Blake3::update.
  void update(const void* data, std::size_t size_bytes, unsigned threads = 1);

  // The roots of the subtrees that the piece consists of, in order: one where a piece is 2^n chunks and starts at a
  // multiple of its size, a few else. Not of an input that is one chunk, which has no subtree.
  [[nodiscard]] std::vector<Digest> values() const;

 private:
  Blake3 hasher_;
};

// The digest of an input of `size_bytes` bytes that was hashed in pieces of `piece_bytes` bytes (a multiple of 1024),
// the last one shorter; `values` are those of all pieces in order, 32 bytes each. Fails with invalid_argument where
// there are fewer or more of them than such pieces have, or fewer than two pieces.
Status blake3_join(const Digest* values, std::size_t count, std::uint64_t size_bytes, std::uint64_t piece_bytes,
                   Digest* digest);

// Chaining values of `count` whole chunks of 1024 bytes, the first of which is number `first` of its input: 32 bytes
// each at `out`. What a hash of the parts of one input is built from.
void blake3_chunk_values(const void* chunks, std::size_t count, std::uint64_t first, std::uint8_t* out) noexcept;

// The Xet file hash, in windows: keyed BLAKE3 over each content-defined chunk, then a tree over (hash, size) pairs
// whose shape follows the hashes.
class XetHasher {
 public:
  // Adds the chunks data[0, ends[0]), data[ends[0], ends[1]), ... of the file's next window. `ends` must rise strictly
  // and stay within `size_bytes`; bytes behind the last end are not hashed (they open the next window). Nothing is
  // added on an error.
  Status add(const std::uint8_t* data, std::size_t size_bytes, const std::uint64_t* ends, std::size_t count,
             unsigned threads = 0);

  // The same for chunks that were hashed elsewhere, with chunk_key().
  Status add_hashed(const Digest* hashes, const std::uint64_t* ends, std::size_t count);
  static const Digest& chunk_key() noexcept;

  // Cuts the file's next `size_bytes` bytes into the protocol's chunks and adds them. Unless these are the file's
  // `last` bytes, the chunk that their end cuts off is left out: `taken` bytes were added, and the rest must open the
  // next call's data. On an error, start the hash anew.
  Status take(const std::uint8_t* data, std::size_t size_bytes, bool last, unsigned threads, std::size_t* taken);

  // The hash of the file made of all chunks added.
  [[nodiscard]] Digest digest() const;

 private:
  struct Entry {
    Digest hash;
    std::uint64_t size_bytes;
  };
  static Entry parent(const Entry* children, std::size_t count);

  std::vector<Entry> leaves_;
};

// The protocol's way to write a hash: four little-endian 64-bit words, 16 hexadecimal digits each, no terminator.
void xet_hex(const Digest& digest, char (&out)[64]) noexcept;

}  // namespace textnlp_fast

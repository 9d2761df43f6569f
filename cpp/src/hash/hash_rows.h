// One input at a time: the four rows of the state in four 128-bit vectors. Bound by latency, so what can be is kept off
// the chain of dependences. Kernel files instantiate this with their own vector type; all is internal to the including
// file.
//
// A row type R has:
//   Reg, set(w0, w1, w2, w3), load(words), store(words, row), add, exclusive_or, rotate16, rotate12, rotate8, rotate7,
//   turn<k>(row)                       lane i takes lane (i + k) mod 4
//   Message(block)                     a block of 16 words, read once
//   Message::rows<round>(x, y, z, t)   its words in the order of that round: even and odd words of the columns, then
//                                      even and odd words of the diagonals, turned to where `compress_rows` wants them
#pragma once
#include <cstring>

#include "hash/hash_constants.h"
#include "hash/hash_kernels.h"

namespace textnlp_fast {
namespace {

template <class R>
[[gnu::always_inline]] inline void mix_rows(typename R::Reg& a, typename R::Reg& b, typename R::Reg& c,
                                            typename R::Reg& d, typename R::Reg x, typename R::Reg y) {
  a = R::add(R::add(a, x), b);
  d = R::rotate16(R::exclusive_or(d, a));
  c = R::add(c, d);
  b = R::rotate12(R::exclusive_or(b, c));
  a = R::add(R::add(a, y), b);
  d = R::rotate8(R::exclusive_or(d, a));
  c = R::add(c, d);
  b = R::rotate7(R::exclusive_or(b, c));
}

// The diagonals are brought into columns by turning rows a, c and d around b. b is the row that a half-round finishes
// last and the next one needs first; the turns of the others hide behind it.
template <class R, int kRound>
[[gnu::always_inline]] inline void mix_row_round(typename R::Reg& a, typename R::Reg& b, typename R::Reg& c,
                                                 typename R::Reg& d, const typename R::Message& message) {
  typename R::Reg x, y, z, t;
  message.template rows<kRound>(x, y, z, t);
  mix_rows<R>(a, b, c, d, x, y);
  a = R::template turn<3>(a);
  d = R::template turn<2>(d);
  c = R::template turn<1>(c);
  mix_rows<R>(a, b, c, d, z, t);
  a = R::template turn<1>(a);
  d = R::template turn<2>(d);
  c = R::template turn<3>(c);
}

// The index, in a round's order of words, of the diagonal words for lane i: row a is turned by three (lane i holds
// column i - 1), and the words must follow it.
constexpr int diagonal_word(int lane, int odd) { return 8 + 2 * ((lane + 3) % 4) + odd; }

template <class R>
[[gnu::always_inline]] inline void compress_rows(typename R::Reg& h0, typename R::Reg& h1, const std::uint8_t* block,
                                                 std::uint32_t block_bytes, std::uint64_t counter,
                                                 std::uint32_t flags) {
  const typename R::Message message(block);
  typename R::Reg a = h0, b = h1;
  typename R::Reg c = R::set(kInitial[0], kInitial[1], kInitial[2], kInitial[3]);
  typename R::Reg d =
      R::set(static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), block_bytes, flags);
  mix_row_round<R, 0>(a, b, c, d, message);
  mix_row_round<R, 1>(a, b, c, d, message);
  mix_row_round<R, 2>(a, b, c, d, message);
  mix_row_round<R, 3>(a, b, c, d, message);
  mix_row_round<R, 4>(a, b, c, d, message);
  mix_row_round<R, 5>(a, b, c, d, message);
  mix_row_round<R, 6>(a, b, c, d, message);
  h0 = R::exclusive_or(a, c);
  h1 = R::exclusive_or(b, d);
}

// HashKernels::hash_one.
template <class R>
void hash_one_rows(const HashNode& node, const std::uint8_t* input, std::size_t size_bytes, std::uint64_t counter,
                   std::uint8_t* out) noexcept {
  typename R::Reg h0 = R::load(node.key);
  typename R::Reg h1 = R::load(node.key + 4);
  std::uint32_t flags = node.flags | node.first_flags;
  while (size_bytes > kBlockBytes) {
    compress_rows<R>(h0, h1, input, kBlockBytes, counter, flags);
    flags = node.flags;
    input += kBlockBytes;
    size_bytes -= kBlockBytes;
  }
  alignas(64) std::uint8_t padded[kBlockBytes];
  if (size_bytes < kBlockBytes) {
    std::memset(padded, 0, sizeof padded);
    if (size_bytes > 0) std::memcpy(padded, input, size_bytes);
    input = padded;
  }
  compress_rows<R>(h0, h1, input, static_cast<std::uint32_t>(size_bytes), counter, flags | node.last_flags);
  R::store(out, h0);
  R::store(out + 16, h1);
}

// One input of HashKernels::hash_each.
template <class R>
void hash_input(const HashNode& node, const HashInput& input) noexcept {
  hash_one_rows<R>({node.key, node.flags, node.first_flags, node.last_flags | input.last_flags}, input.bytes,
                   input.size_bytes, input.counter, input.out);
}

}  // namespace
}  // namespace textnlp_fast

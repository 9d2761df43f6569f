// The compression function of BLAKE3 in plain words, for processors without vectors and for CUDA. Internal linkage.
#pragma once
#include <cstdint>

#include "codec/host_device.h"
#include "hash/hash_constants.h"

namespace textnlp_fast {
namespace {

template <int kBits>
TEXTNLP_FAST_HD inline std::uint32_t rotated_right(std::uint32_t word) {
  return word >> kBits | word << (32 - kBits);
}

TEXTNLP_FAST_HD inline void quarter_round(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d,
                                          std::uint32_t x, std::uint32_t y) {
  a += b + x;
  d = rotated_right<16>(d ^ a);
  c += d;
  b = rotated_right<12>(b ^ c);
  a += b + y;
  d = rotated_right<8>(d ^ a);
  c += d;
  b = rotated_right<7>(b ^ c);
}

// All indices are constants, so that words stay in registers.
template <int kRound>
TEXTNLP_FAST_HD inline void mix_rounds(std::uint32_t (&v)[16], const std::uint32_t (&m)[16]) {
  if constexpr (kRound < 7) {
    constexpr int kFirst[8] = {kSchedule.word[kRound][0], kSchedule.word[kRound][1], kSchedule.word[kRound][2],
                               kSchedule.word[kRound][3], kSchedule.word[kRound][4], kSchedule.word[kRound][5],
                               kSchedule.word[kRound][6], kSchedule.word[kRound][7]};
    constexpr int kLast[8] = {kSchedule.word[kRound][8],  kSchedule.word[kRound][9],  kSchedule.word[kRound][10],
                              kSchedule.word[kRound][11], kSchedule.word[kRound][12], kSchedule.word[kRound][13],
                              kSchedule.word[kRound][14], kSchedule.word[kRound][15]};
    quarter_round(v[0], v[4], v[8], v[12], m[kFirst[0]], m[kFirst[1]]);
    quarter_round(v[1], v[5], v[9], v[13], m[kFirst[2]], m[kFirst[3]]);
    quarter_round(v[2], v[6], v[10], v[14], m[kFirst[4]], m[kFirst[5]]);
    quarter_round(v[3], v[7], v[11], v[15], m[kFirst[6]], m[kFirst[7]]);
    quarter_round(v[0], v[5], v[10], v[15], m[kLast[0]], m[kLast[1]]);
    quarter_round(v[1], v[6], v[11], v[12], m[kLast[2]], m[kLast[3]]);
    quarter_round(v[2], v[7], v[8], v[13], m[kLast[4]], m[kLast[5]]);
    quarter_round(v[3], v[4], v[9], v[14], m[kLast[6]], m[kLast[7]]);
    mix_rounds<kRound + 1>(v, m);
  }
}

// The chaining value `h` after a block of `block_bytes` bytes, whose words are `m`, the rest zeros.
TEXTNLP_FAST_HD inline void compress_words(std::uint32_t (&h)[8], const std::uint32_t (&m)[16],
                                           std::uint32_t block_bytes, std::uint64_t counter, std::uint32_t flags) {
  std::uint32_t v[16] = {h[0],
                         h[1],
                         h[2],
                         h[3],
                         h[4],
                         h[5],
                         h[6],
                         h[7],
                         kInitial[0],
                         kInitial[1],
                         kInitial[2],
                         kInitial[3],
                         static_cast<std::uint32_t>(counter),
                         static_cast<std::uint32_t>(counter >> 32),
                         block_bytes,
                         flags};
  mix_rounds<0>(v, m);
  for (int i = 0; i < 8; ++i) h[i] = v[i] ^ v[i + 8];
}

}  // namespace
}  // namespace textnlp_fast

// Which bytes occur in a plane, and how often, on AVX-512.
#pragma once
#include "codec/avx512_lanes.h"

namespace textnlp_fast {
namespace {
namespace avx512 {

// Bytes that lie in a window of 64 are counted two at a time: half the increments.
void byte_histogram(const std::uint8_t* data, std::size_t count, std::uint32_t* counts) {
  const std::size_t whole = count / 64 * 64;
  __m512i least = _mm512_set1_epi8(-1);
  __m512i most = _mm512_setzero_si512();
  for (std::size_t i = 0; i < whole; i += 64) {
    const __m512i bytes = _mm512_loadu_si512(data + i);
    least = _mm512_min_epu8(least, bytes);
    most = _mm512_max_epu8(most, bytes);
  }
  alignas(64) std::uint8_t lows[64];
  alignas(64) std::uint8_t highs[64];
  _mm512_store_si512(lows, least);
  _mm512_store_si512(highs, most);
  unsigned low = 255;
  unsigned high = 0;
  for (unsigned lane = 0; lane < 64; ++lane) {
    low = lows[lane] < low ? lows[lane] : low;
    high = highs[lane] > high ? highs[lane] : high;
  }
  if (whole == 0 || high - low >= 64) {
    portable::byte_histogram(data, count, counts);
    return;
  }
  std::uint32_t pairs[64 * 64] = {};
  const __m512i origin = _mm512_set1_epi8(static_cast<char>(low));
  for (std::size_t i = 0; i < whole; i += 64) {
    const __m512i bytes = _mm512_sub_epi8(_mm512_loadu_si512(data + i), origin);
    alignas(64) std::uint64_t index[8];
    _mm512_store_si512(index, _mm512_or_si512(_mm512_and_si512(bytes, _mm512_set1_epi16(63)),
                                              _mm512_slli_epi16(_mm512_srli_epi16(bytes, 8), 6)));
#pragma GCC unroll 8
    for (unsigned word = 0; word < 8; ++word) {
      ++pairs[index[word] & 0xffff];
      ++pairs[(index[word] >> 16) & 0xffff];
      ++pairs[(index[word] >> 32) & 0xffff];
      ++pairs[index[word] >> 48];
    }
  }
  for (unsigned first = 0; first + low <= high; ++first) {
    for (unsigned second = 0; second + low <= high; ++second) {
      counts[low + first] += pairs[second << 6 | first];
      counts[low + second] += pairs[second << 6 | first];
    }
  }
  for (std::size_t i = whole; i < count; ++i) ++counts[data[i]];
}

void byte_presence(const std::uint8_t* data, std::size_t count, std::uint8_t* seen) {
  __m512i flags[4];
  auto load = [&] {
    for (unsigned k = 0; k < 4; ++k) flags[k] = _mm512_loadu_si512(seen + 64 * k);
  };
  load();
  std::size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    const __m512i bytes = _mm512_loadu_si512(data + i);
    const __m512i lower = _mm512_permutex2var_epi8(flags[0], bytes, flags[1]);
    const __m512i upper = _mm512_permutex2var_epi8(flags[2], bytes, flags[3]);
    const __m512i found = _mm512_mask_mov_epi8(lower, _mm512_movepi8_mask(bytes), upper);
    if (__builtin_expect(_mm512_testn_epi8_mask(found, found) == 0, 1)) continue;
    portable::byte_presence(data + i, 64, seen);
    load();
  }
  portable::byte_presence(data + i, count - i, seen);
}

}  // namespace avx512
}  // namespace
}  // namespace textnlp_fast

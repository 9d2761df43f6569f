// Byte planes on AVX2.
#pragma once
#include "codec/avx2_writer.h"

namespace textnlp_fast {
namespace {
namespace avx2 {

// Slot entries of thirty-two lanes, unpacked.
struct Entries {
  Pair freq;
  Pair offset;
  Pair symbol;
};

TEXTNLP_FAST_INLINE Entries unpack_entries(const Wide& found) {
  const Pair lows = lower_halves(found);
  const Pair highs = upper_halves(found);
  const __m256i twelve = set16(0xfff);
  const __m256i minus_one = set16(0xffff);
  const __m256i upper_four = set16(0xf0);
  return {
      {_mm256_sub_epi16(_mm256_and_si256(lows.a, twelve), minus_one),
       _mm256_sub_epi16(_mm256_and_si256(lows.b, twelve), minus_one)},
      {_mm256_and_si256(highs.a, twelve), _mm256_and_si256(highs.b, twelve)},
      {_mm256_or_si256(_mm256_srli_epi16(lows.a, 12), _mm256_and_si256(_mm256_srli_epi16(highs.a, 8), upper_four)),
       _mm256_or_si256(_mm256_srli_epi16(lows.b, 12), _mm256_and_si256(_mm256_srli_epi16(highs.b, 8), upper_four))}};
}

struct PlaneReader {
  const std::uint32_t* slots;
  __m256i slot_mask;
  Shifts shifts;

  explicit PlaneReader(const ByteDecodeTable& table)
      : slots(table.slots), slot_mask(set16((1u << table.table_log) - 1)), shifts(table.table_log) {}

  TEXTNLP_FAST_INLINE void look(Ahead& ahead, const Lanes& lanes) const {
    ahead.store({_mm256_and_si256(lanes.low.a, slot_mask), _mm256_and_si256(lanes.low.b, slot_mask)});
  }

  // Symbols of one step.
  TEXTNLP_FAST_INLINE Pair take(const Ahead& ahead, Lanes& lanes, SegmentStream& stream) const {
    const Entries entries = unpack_entries(fetch(slots, ahead));
    advance(lanes, entries.freq, entries.offset, shifts);
    refill(lanes, stream);
    return entries.symbol;
  }
};

// A pack leaves the eights of lanes in the order 0, 2, 1, 3.
TEXTNLP_FAST_INLINE void store_bytes(std::uint8_t* to, const Pair& bytes) {
  store256(to, _mm256_permute4x64_epi64(_mm256_packus_epi16(bytes.a, bytes.b), 0xd8));
}

bool bytes_decode(SegmentInput* segments, unsigned count, const ByteDecodeTable* table, std::uint8_t* out) {
  const PlaneReader reader(*table);
  return decode_segments(
      segments, count,
      [&](std::size_t, Ahead & ahead, const Lanes& lanes) __attribute__((always_inline)) { reader.look(ahead, lanes); },
      [&](std::size_t at, const Ahead& ahead, Lanes& lanes, SegmentStream& stream)
          __attribute__((always_inline)) { store_bytes(out + at, reader.take(ahead, lanes, stream)); },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        for (std::size_t i = first; i < segment.count; ++i) {
          out[segment.begin + i] =
              static_cast<std::uint8_t>(scalar::byte_take(segment.states[i % kLanes], *table, words));
        }
      });
}

TEXTNLP_FAST_INLINE __m256i join_bytes(__m256i upper, __m256i lower, bool rotate) {
  const __m256i joined = _mm256_or_si256(_mm256_slli_epi16(upper, 8), lower);
  return rotate ? _mm256_or_si256(_mm256_srli_epi16(joined, 1), _mm256_slli_epi16(joined, 15)) : joined;
}

TEXTNLP_FAST_INLINE Pair load_bytes(const std::uint8_t* bytes) {
  return {_mm256_cvtepu8_epi16(load128(bytes)), _mm256_cvtepu8_epi16(load128(bytes + 16))};
}

bool bytes_decode_merge2(SegmentInput* segments, unsigned count, const ByteDecodeTable* table, bool rotate,
                         const std::uint8_t* lower, std::uint8_t* out) {
  const PlaneReader reader(*table);
  return decode_segments(
      segments, count,
      [&](std::size_t, Ahead & ahead, const Lanes& lanes) __attribute__((always_inline)) { reader.look(ahead, lanes); },
      [&](std::size_t at, const Ahead& ahead, Lanes& lanes, SegmentStream& stream) __attribute__((always_inline)) {
        const Pair symbols = reader.take(ahead, lanes, stream);
        const Pair below = load_bytes(lower + at);
        store_pair(out, at, {join_bytes(symbols.a, below.a, rotate), join_bytes(symbols.b, below.b, rotate)});
      },
      [&](SegmentInput& segment, std::size_t first, WordReader& words) {
        for (std::size_t i = first; i < segment.count; ++i) {
          const std::size_t at = segment.begin + i;
          const unsigned symbol = scalar::byte_take(segment.states[i % kLanes], *table, words);
          scalar::store<std::uint16_t>(out, at, scalar::join(symbol, lower[at], rotate));
        }
      });
}

void bytes_encode(const std::uint8_t* data, const EncodeSymbol* symbols, unsigned table_log, SegmentOutput* segments,
                  unsigned segment_count) {
  if (table_log < kMinVectorLog) {
    portable::bytes_encode(data, symbols, table_log, segments, segment_count);
    return;
  }
  const Writer writer(table_log);
  encode_segments<Ahead>(
      segments, segment_count,
      [&](SegmentOutput& segment) {
        scalar::bytes_put(data + segment.begin, segment.count / kLanes * kLanes, segment.count, symbols, table_log,
                          segment.states, segment.words);
      },
      [&](std::size_t at, Ahead & ahead) __attribute__((always_inline)) { ahead.store(load_bytes(data + at)); },
      [&](const Ahead& ahead, Wide& lanes, WordSink& sink)
          __attribute__((always_inline)) { writer.put_symbols(lanes, fetch(symbols, ahead), sink); });
}

// A bit a byte, 32 bytes of them: the upper five bits of a byte pick one of those, the lower three the bit in it.
void byte_presence(const std::uint8_t* data, std::size_t count, std::uint8_t* seen) {
  __m256i lower;
  __m256i upper;
  auto load = [&] {
    alignas(16) std::uint8_t bits[32] = {};
    for (unsigned byte = 0; byte < 256; ++byte) bits[byte >> 3] |= static_cast<std::uint8_t>(seen[byte] << (byte & 7));
    lower = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
    upper = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bits + 16)));
  };
  load();
  const __m256i one_bit = _mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64,
                                           -128, 0, 0, 0, 0, 0, 0, 0, 0);
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i bytes = load256(data + i);
    const __m256i row = _mm256_and_si256(_mm256_srli_epi16(bytes, 3), _mm256_set1_epi8(15));
    // The top bit of a byte is the top bit of its row's number.
    const __m256i rows = _mm256_blendv_epi8(_mm256_shuffle_epi8(lower, row), _mm256_shuffle_epi8(upper, row), bytes);
    const __m256i bit = _mm256_shuffle_epi8(one_bit, _mm256_and_si256(bytes, _mm256_set1_epi8(7)));
    const __m256i missing = _mm256_cmpeq_epi8(_mm256_and_si256(rows, bit), _mm256_setzero_si256());
    if (__builtin_expect(_mm256_testz_si256(missing, missing) != 0, 1)) continue;
    portable::byte_presence(data + i, 32, seen);
    load();
  }
  portable::byte_presence(data + i, count - i, seen);
}

// Bytes that lie in a window of 64 are counted two at a time: half the increments.
void byte_histogram(const std::uint8_t* data, std::size_t count, std::uint32_t* counts) {
  constexpr unsigned kWindow = 64;
  const std::size_t whole = count / 32 * 32;
  __m256i least = _mm256_set1_epi8(-1);
  __m256i most = _mm256_setzero_si256();
  for (std::size_t i = 0; i < whole; i += 32) {
    const __m256i bytes = load256(data + i);
    least = _mm256_min_epu8(least, bytes);
    most = _mm256_max_epu8(most, bytes);
  }
  std::uint8_t lows[32];
  std::uint8_t highs[32];
  store256(lows, least);
  store256(highs, most);
  unsigned low = 255;
  unsigned high = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    low = lows[lane] < low ? lows[lane] : low;
    high = highs[lane] > high ? highs[lane] : high;
  }
  if (whole == 0 || high - low >= kWindow) {
    portable::byte_histogram(data, count, counts);
    return;
  }
  std::uint32_t pairs[kWindow * kWindow] = {};
  const __m256i origin = _mm256_set1_epi8(static_cast<char>(low));
  for (std::size_t i = 0; i < whole; i += 32) {
    const __m256i bytes = _mm256_sub_epi8(load256(data + i), origin);
    alignas(32) std::uint64_t index[4];
    store256(index, _mm256_or_si256(_mm256_and_si256(bytes, set16(kWindow - 1)),
                                    _mm256_slli_epi16(_mm256_srli_epi16(bytes, 8), 6)));
#pragma GCC unroll 4
    for (unsigned word = 0; word < 4; ++word) {
      ++pairs[index[word] & 0xffff];
      ++pairs[(index[word] >> 16) & 0xffff];
      ++pairs[(index[word] >> 32) & 0xffff];
      ++pairs[index[word] >> 48];
    }
  }
  for (unsigned first = 0; first + low <= high; ++first) {
    for (unsigned second = 0; second + low <= high; ++second) {
      counts[low + first] += pairs[second * kWindow + first];
      counts[low + second] += pairs[second * kWindow + first];
    }
  }
  for (std::size_t i = whole; i < count; ++i) ++counts[data[i]];
}

void split_planes(unsigned element_size, bool rotate, const std::uint8_t* data, std::size_t count,
                  std::uint8_t* const* planes) {
  if (element_size != 2) {
    portable::split_planes(element_size, rotate, data, count, planes);
    return;
  }
  const __m256i lower = set16(0xff);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Pair value = load_pair(data, i);
    if (rotate) {
      value.a = _mm256_or_si256(_mm256_slli_epi16(value.a, 1), _mm256_srli_epi16(value.a, 15));
      value.b = _mm256_or_si256(_mm256_slli_epi16(value.b, 1), _mm256_srli_epi16(value.b, 15));
    }
    store_bytes(planes[0] + i, {_mm256_srli_epi16(value.a, 8), _mm256_srli_epi16(value.b, 8)});
    store_bytes(planes[1] + i, {_mm256_and_si256(value.a, lower), _mm256_and_si256(value.b, lower)});
  }
  std::uint8_t* const rest[2] = {planes[0] + i, planes[1] + i};
  portable::split_planes(2, rotate, data + 2 * i, count - i, rest);
}

void merge_planes(unsigned element_size, bool rotate, const std::uint8_t* const* planes, std::size_t count,
                  std::uint8_t* data) {
  if (element_size != 2) {
    portable::merge_planes(element_size, rotate, planes, count, data);
    return;
  }
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Pair upper = load_bytes(planes[0] + i);
    const Pair lower = load_bytes(planes[1] + i);
    store_pair(data, i, {join_bytes(upper.a, lower.a, rotate), join_bytes(upper.b, lower.b, rotate)});
  }
  const std::uint8_t* const rest[2] = {planes[0] + i, planes[1] + i};
  portable::merge_planes(2, rotate, rest, count - i, data + 2 * i);
}

}  // namespace avx2
}  // namespace
}  // namespace textnlp_fast

// The loops of the peers that exist only as a recipe (XOR + byte planes + zstd; gaps + values + zstd), written so that
// zstd is what they spend their time on: blocks small enough that the planes never leave the L2 cache, 512-bit loads
// where the machine has them, contexts and scratch memory owned by the caller and reused, no allocation in here.
// Compiled when a bench starts, with -O3 -march=native; libzstd comes in as function pointers.

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512VBMI__) || defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#endif

extern "C" {

struct Zstd {
  size_t (*compress)(void* context, void* out, size_t capacity, const void* in, size_t size);
  size_t (*decompress)(void* context, void* out, size_t capacity, const void* in, size_t size);
  unsigned (*is_error)(size_t code);
  void* compressor;
  void* decompressor;
};
}

namespace {

constexpr size_t failed = ~size_t{0};

void store32(uint8_t* out, size_t value) {
  const auto narrow = static_cast<uint32_t>(value);
  std::memcpy(out, &narrow, sizeof narrow);
}

size_t load32(const uint8_t* in) {
  uint32_t value;
  std::memcpy(&value, in, sizeof value);
  return value;
}

// low[i], high[i] = the two bytes of target[i] ^ base[i]
void xor_split_pairs(const uint8_t* target, const uint8_t* base, size_t words, uint8_t* low, uint8_t* high) {
  size_t i = 0;
#if defined(__AVX512VBMI__)
  alignas(64) uint8_t even[64];
  for (int k = 0; k < 64; ++k) even[k] = static_cast<uint8_t>(2 * k);
  const __m512i pick_low = _mm512_load_si512(even);
  const __m512i pick_high = _mm512_or_si512(pick_low, _mm512_set1_epi8(1));
  for (; i + 64 <= words; i += 64) {
    const __m512i a = _mm512_xor_si512(_mm512_loadu_si512(target + 2 * i), _mm512_loadu_si512(base + 2 * i));
    const __m512i b = _mm512_xor_si512(_mm512_loadu_si512(target + 2 * i + 64), _mm512_loadu_si512(base + 2 * i + 64));
    _mm512_storeu_si512(low + i, _mm512_permutex2var_epi8(a, pick_low, b));
    _mm512_storeu_si512(high + i, _mm512_permutex2var_epi8(a, pick_high, b));
  }
#elif defined(__AVX2__)
  const __m256i byte = _mm256_set1_epi16(0xFF);
  for (; i + 32 <= words; i += 32) {
    const auto* t = reinterpret_cast<const __m256i*>(target + 2 * i);
    const auto* r = reinterpret_cast<const __m256i*>(base + 2 * i);
    const __m256i a = _mm256_xor_si256(_mm256_loadu_si256(t), _mm256_loadu_si256(r));
    const __m256i b = _mm256_xor_si256(_mm256_loadu_si256(t + 1), _mm256_loadu_si256(r + 1));
    const __m256i l = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
    const __m256i h = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low + i), _mm256_permute4x64_epi64(l, 0xD8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + i), _mm256_permute4x64_epi64(h, 0xD8));
  }
#endif
  for (; i < words; ++i) {
    low[i] = target[2 * i] ^ base[2 * i];
    high[i] = target[2 * i + 1] ^ base[2 * i + 1];
  }
}

// plane k of `planes` (each `words` long) = byte k of target[i] ^ base[i], elements of `width` bytes
void xor_split(const uint8_t* target, const uint8_t* base, size_t words, size_t width, uint8_t* planes) {
  if (width == 2) return xor_split_pairs(target, base, words, planes, planes + words);
  for (size_t k = 0; k < width; ++k)
    for (size_t i = 0; i < words; ++i) planes[k * words + i] = target[width * i + k] ^ base[width * i + k];
}

// out[i] = (low[i] | high[i] << 8) ^ base[i]; out may be base
void join_xor_pairs(const uint8_t* low, const uint8_t* high, const uint8_t* base, size_t words, uint8_t* out) {
  size_t i = 0;
#if defined(__AVX512VBMI__)
  alignas(64) uint8_t first[64];
  for (int k = 0; k < 64; ++k) first[k] = static_cast<uint8_t>(k / 2 + 64 * (k % 2));
  const __m512i front = _mm512_load_si512(first);
  const __m512i back = _mm512_add_epi8(front, _mm512_set1_epi8(32));
  for (; i + 64 <= words; i += 64) {
    const __m512i l = _mm512_loadu_si512(low + i);
    const __m512i h = _mm512_loadu_si512(high + i);
    const __m512i a = _mm512_permutex2var_epi8(l, front, h);
    const __m512i b = _mm512_permutex2var_epi8(l, back, h);
    _mm512_storeu_si512(out + 2 * i, _mm512_xor_si512(a, _mm512_loadu_si512(base + 2 * i)));
    _mm512_storeu_si512(out + 2 * i + 64, _mm512_xor_si512(b, _mm512_loadu_si512(base + 2 * i + 64)));
  }
#elif defined(__AVX2__)
  for (; i + 32 <= words; i += 32) {
    const __m256i l = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low + i));
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high + i));
    const __m256i even = _mm256_unpacklo_epi8(l, h);
    const __m256i odd = _mm256_unpackhi_epi8(l, h);
    const auto* r = reinterpret_cast<const __m256i*>(base + 2 * i);
    const __m256i a = _mm256_xor_si256(_mm256_permute2x128_si256(even, odd, 0x20), _mm256_loadu_si256(r));
    const __m256i b = _mm256_xor_si256(_mm256_permute2x128_si256(even, odd, 0x31), _mm256_loadu_si256(r + 1));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * i), a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * i) + 1, b);
  }
#endif
  for (; i < words; ++i) {
    out[2 * i] = low[i] ^ base[2 * i];
    out[2 * i + 1] = high[i] ^ base[2 * i + 1];
  }
}

void join_xor(const uint8_t* planes, const uint8_t* base, size_t words, size_t width, uint8_t* out) {
  if (width == 2) return join_xor_pairs(planes, planes + words, base, words, out);
  for (size_t k = 0; k < width; ++k)
    for (size_t i = 0; i < words; ++i) out[width * i + k] = planes[k * words + i] ^ base[width * i + k];
}

// Compresses one plane behind its 4-byte size; returns the bytes written.
size_t pack(const Zstd* zstd, const uint8_t* plane, size_t size, uint8_t* out, size_t capacity) {
  if (capacity < 4) return failed;
  const size_t packed = zstd->compress(zstd->compressor, out + 4, capacity - 4, plane, size);
  if (zstd->is_error(packed)) return failed;
  store32(out, packed);
  return packed + 4;
}

size_t unpack(const Zstd* zstd, const uint8_t* in, size_t left, uint8_t* plane, size_t size) {
  if (left < 4 || load32(in) > left - 4) return failed;
  const size_t packed = load32(in);
  if (zstd->decompress(zstd->decompressor, plane, size, in + 4, packed) != size) return failed;
  return packed + 4;
}

}  // namespace

extern "C" {

// Payload: for each block of `block` words of `width` bytes, its byte planes, lowest first, each a zstd frame behind
// its size. scratch: width * block bytes. Returns the payload's bytes, or ~0.
size_t bitx_encode(const Zstd* zstd, const uint8_t* target, const uint8_t* base, size_t words, size_t width,
                   size_t block, uint8_t* scratch, uint8_t* out, size_t capacity) {
  size_t written = 0;
  for (size_t begin = 0; begin < words; begin += block) {
    const size_t count = words - begin < block ? words - begin : block;
    xor_split(target + width * begin, base + width * begin, count, width, scratch);
    for (size_t plane = 0; plane < width; ++plane) {
      const size_t bytes = pack(zstd, scratch + plane * count, count, out + written, capacity - written);
      if (bytes == failed) return failed;
      written += bytes;
    }
  }
  return written;
}

size_t bitx_decode(const Zstd* zstd, const uint8_t* payload, size_t size, const uint8_t* base, size_t words,
                   size_t width, size_t block, uint8_t* scratch, uint8_t* out) {
  size_t read = 0;
  for (size_t begin = 0; begin < words; begin += block) {
    const size_t count = words - begin < block ? words - begin : block;
    for (size_t plane = 0; plane < width; ++plane) {
      const size_t bytes = unpack(zstd, payload + read, size - read, scratch + plane * count, count);
      if (bytes == failed) return failed;
      read += bytes;
    }
    join_xor(scratch, base + width * begin, count, width, out + width * begin);
  }
  return read;
}

// Byte planes alone, for coding without a base: the same loops against zeros that are never read.
void plane_split(const uint8_t* in, size_t words, uint8_t* low, uint8_t* high) {
#if defined(__AVX512VBMI__)
  size_t i = 0;
  alignas(64) uint8_t even[64];
  for (int k = 0; k < 64; ++k) even[k] = static_cast<uint8_t>(2 * k);
  const __m512i pick_low = _mm512_load_si512(even);
  const __m512i pick_high = _mm512_or_si512(pick_low, _mm512_set1_epi8(1));
  for (; i + 64 <= words; i += 64) {
    const __m512i a = _mm512_loadu_si512(in + 2 * i);
    const __m512i b = _mm512_loadu_si512(in + 2 * i + 64);
    _mm512_storeu_si512(low + i, _mm512_permutex2var_epi8(a, pick_low, b));
    _mm512_storeu_si512(high + i, _mm512_permutex2var_epi8(a, pick_high, b));
  }
#else
  size_t i = 0;
#endif
  for (; i < words; ++i) {
    low[i] = in[2 * i];
    high[i] = in[2 * i + 1];
  }
}

void plane_join(const uint8_t* low, const uint8_t* high, size_t words, uint8_t* out) {
#if defined(__AVX512VBMI__)
  size_t i = 0;
  alignas(64) uint8_t first[64];
  for (int k = 0; k < 64; ++k) first[k] = static_cast<uint8_t>(k / 2 + 64 * (k % 2));
  const __m512i front = _mm512_load_si512(first);
  const __m512i back = _mm512_add_epi8(front, _mm512_set1_epi8(32));
  for (; i + 64 <= words; i += 64) {
    const __m512i l = _mm512_loadu_si512(low + i);
    const __m512i h = _mm512_loadu_si512(high + i);
    _mm512_storeu_si512(out + 2 * i, _mm512_permutex2var_epi8(l, front, h));
    _mm512_storeu_si512(out + 2 * i + 64, _mm512_permutex2var_epi8(l, back, h));
  }
#else
  size_t i = 0;
#endif
  for (; i < words; ++i) {
    out[2 * i] = low[i];
    out[2 * i + 1] = high[i];
  }
}

size_t planes_encode(const Zstd* zstd, const uint8_t* in, size_t words, size_t block, uint8_t* scratch, uint8_t* out,
                     size_t capacity) {
  size_t written = 0;
  for (size_t begin = 0; begin < words; begin += block) {
    const size_t count = words - begin < block ? words - begin : block;
    plane_split(in + 2 * begin, count, scratch, scratch + count);
    for (int plane = 0; plane < 2; ++plane) {
      const size_t bytes = pack(zstd, scratch + plane * count, count, out + written, capacity - written);
      if (bytes == failed) return failed;
      written += bytes;
    }
  }
  return written;
}

size_t planes_decode(const Zstd* zstd, const uint8_t* payload, size_t size, size_t words, size_t block,
                     uint8_t* scratch, uint8_t* out) {
  size_t read = 0;
  for (size_t begin = 0; begin < words; begin += block) {
    const size_t count = words - begin < block ? words - begin : block;
    for (int plane = 0; plane < 2; ++plane) {
      const size_t bytes = unpack(zstd, payload + read, size - read, scratch + plane * count, count);
      if (bytes == failed) return failed;
      read += bytes;
    }
    plane_join(scratch, scratch + count, count, out + 2 * begin);
  }
  return read;
}
}

namespace {

// Calls found(i) for each i below `count` whose element of W bytes differs.
template <size_t W, class Found>
void for_each_change(const uint8_t* target, const uint8_t* base, size_t count, const Found& found) {
  size_t i = 0;
#if defined(__AVX512BW__)
  constexpr size_t lanes = 64 / W;
  for (; i + lanes <= count; i += lanes) {
    const __m512i a = _mm512_loadu_si512(target + W * i);
    const __m512i b = _mm512_loadu_si512(base + W * i);
    uint64_t mask;
    if constexpr (W == 1) mask = _mm512_cmpneq_epi8_mask(a, b);
    if constexpr (W == 2) mask = _mm512_cmpneq_epi16_mask(a, b);
    if constexpr (W == 4) mask = _mm512_cmpneq_epi32_mask(a, b);
    for (; mask; mask &= mask - 1) found(i + static_cast<size_t>(__builtin_ctzll(mask)));
  }
#endif
  for (; i < count; ++i)
    if (std::memcmp(target + W * i, base + W * i, W)) found(i);
}

template <size_t W>
size_t encode_gaps(const Zstd* zstd, const uint8_t* target, const uint8_t* base, size_t words, size_t block,
                   uint8_t* scratch, uint8_t* out, size_t capacity) {
  uint8_t* const gaps = scratch;
  uint8_t* const values = gaps + 2 * block + 64;
  const size_t stride = block + 64;
  size_t written = 0;
  for (size_t begin = 0; begin < words; begin += block) {
    const size_t count = words - begin < block ? words - begin : block;
    const uint8_t* const t = target + W * begin;
    const uint8_t* const r = base + W * begin;
    size_t gap_bytes = 0, changes = 0, next = 0;
    for_each_change<W>(t, r, count, [&](size_t at) {
      size_t gap = at - next;
      for (; gap >= 255; gap -= 255) gaps[gap_bytes++] = 255;
      gaps[gap_bytes++] = static_cast<uint8_t>(gap);
      for (size_t k = 0; k < W; ++k) values[k * stride + changes] = t[W * at + k] ^ r[W * at + k];
      ++changes;
      next = at + 1;
    });
    if (capacity - written < 8) return failed;
    store32(out + written, changes);
    store32(out + written + 4, gap_bytes);
    written += 8;
    for (size_t k = 0; changes && k <= W; ++k) {
      const uint8_t* const stream = k == 0 ? gaps : values + (k - 1) * stride;
      const size_t bytes = pack(zstd, stream, k == 0 ? gap_bytes : changes, out + written, capacity - written);
      if (bytes == failed) return failed;
      written += bytes;
    }
  }
  return written;
}

template <size_t W>
size_t apply_gaps(const Zstd* zstd, const uint8_t* payload, size_t size, size_t words, size_t block, uint8_t* scratch,
                  uint8_t* out) {
  uint8_t* const gaps = scratch;
  uint8_t* const values = gaps + 2 * block + 64;
  const size_t stride = block + 64;
  size_t read = 0;
  for (size_t begin = 0; begin < words; begin += block) {
    const size_t count = words - begin < block ? words - begin : block;
    if (size - read < 8) return failed;
    const size_t changes = load32(payload + read), gap_bytes = load32(payload + read + 4);
    read += 8;
    if (changes > count || gap_bytes > 2 * block) return failed;
    for (size_t k = 0; changes && k <= W; ++k) {
      uint8_t* const stream = k == 0 ? gaps : values + (k - 1) * stride;
      const size_t bytes = unpack(zstd, payload + read, size - read, stream, k == 0 ? gap_bytes : changes);
      if (bytes == failed) return failed;
      read += bytes;
    }
    size_t at = 0, gap = 0;
    for (size_t i = 0; i < changes; ++i) {
      while (gap < gap_bytes && gaps[gap] == 255) {
        at += 255;
        ++gap;
      }
      if (gap == gap_bytes) return failed;
      at += gaps[gap++];
      if (at >= count) return failed;
      uint8_t* const word = out + W * (begin + at);
      for (size_t k = 0; k < W; ++k) word[k] ^= values[k * stride + i];
      ++at;
    }
  }
  return read;
}

}  // namespace

extern "C" {

// Sparse layout: for each block of `block` words of `width` (1, 2 or 4) bytes a 4-byte count of changes and of gap
// bytes, the gaps (unchanged words before each change: bytes, 255 meaning "255 more and go on"), the byte planes of
// target ^ base at the changes, each a zstd frame behind its coded size. XOR and not the new value: it is smaller on
// every pair we have. scratch: 2 * block bytes of gaps (escapes included), width * block of values, and 64 of slack
// behind each.
size_t gaps_encode(const Zstd* zstd, const uint8_t* target, const uint8_t* base, size_t words, size_t width,
                   size_t block, uint8_t* scratch, uint8_t* out, size_t capacity) {
  const auto encode = width == 1 ? encode_gaps<1> : width == 2 ? encode_gaps<2> : encode_gaps<4>;
  return encode(zstd, target, base, words, block, scratch, out, capacity);
}

// Applies the changes to `out`, which holds the base: time follows the number of changes.
size_t gaps_apply(const Zstd* zstd, const uint8_t* payload, size_t size, size_t words, size_t width, size_t block,
                  uint8_t* scratch, uint8_t* out) {
  const auto apply = width == 1 ? apply_gaps<1> : width == 2 ? apply_gaps<2> : apply_gaps<4>;
  return apply(zstd, payload, size, words, block, scratch, out);
}

// Passes over memory and nothing else, for words of two bytes. They ask for what lies 2 KiB ahead, for prefetchers of
// the hardware stop where pages end. What any encoder of a change must do: look at both sides once. Returns how many
// words differ.
size_t pass_compare(const uint8_t* target, const uint8_t* base, size_t words) {
  size_t differ = 0;
  for (size_t i = 0; i + 32 <= words; i += 32) {
    __builtin_prefetch(target + 2 * i + 2048);
    __builtin_prefetch(base + 2 * i + 2048);
    uint16_t a[32], b[32];
    std::memcpy(a, target + 2 * i, sizeof a);
    std::memcpy(b, base + 2 * i, sizeof b);
    unsigned here = 0;
    for (int k = 0; k < 32; ++k) here += a[k] != b[k];
    differ += here;
  }
  return differ;
}

// What any decoder must do that knows each exponent of the base. Returns the largest.
size_t pass_exponents(const uint8_t* base, size_t words) {
  uint16_t most[32] = {};
  for (size_t i = 0; i + 32 <= words; i += 32) {
    __builtin_prefetch(base + 2 * i + 2048);
    uint16_t a[32];
    std::memcpy(a, base + 2 * i, sizeof a);
    for (int k = 0; k < 32; ++k) {
      const auto exponent = static_cast<uint16_t>(a[k] & 0x7f80);
      most[k] = most[k] > exponent ? most[k] : exponent;
    }
  }
  uint16_t largest = 0;
  for (const uint16_t one : most) largest = largest > one ? largest : one;
  return largest;
}
}

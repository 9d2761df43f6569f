// BLAKE3 against digests computed by the reference implementation (input byte i is i mod 251, as in its own vectors).
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "check.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/hash.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

struct Vector {
  std::size_t size_bytes;
  const char* hex;
};

constexpr Vector kVectors[] = {
    {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
    {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
    {64, "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98"},
    {65, "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee"},
    {1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"},
    {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
    {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"},
    {2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"},
    {8192, "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63"},
    {16385, "1dabe216be2578830263b049de1639f39f05a4da616b9b78c7a5e4e41662fd1f"},
    {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"},
    {1048577, "2f053cd7472cf0cd2f9adaf45c1180255b91b9a865404a63671a0ee5f792ed33"},
};
constexpr char kKey[] = "whats the Elvish word for friend";
constexpr Vector kKeyed = {5121, "6ccf1c34753e7a044db80798ecd0782a8f76f33563accaddbfbb2e0ea4b2d024"};

std::vector<std::uint8_t> pattern(std::size_t size_bytes) {
  std::vector<std::uint8_t> bytes(size_bytes);
  for (std::size_t index = 0; index < size_bytes; ++index) bytes[index] = static_cast<std::uint8_t>(index % 251);
  return bytes;
}

std::string hex(const Digest& digest) {
  std::string text;
  for (const std::uint8_t byte : digest) {
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", byte);
    text += pair;
  }
  return text;
}

void one_shot_and_streaming_agree_with_the_reference() {
  for (const Vector& vector : kVectors) {
    const auto input = pattern(vector.size_bytes);
    for (const unsigned threads : {1U, 3U}) CHECK(hex(blake3(input.data(), input.size(), threads)) == vector.hex);
    for (const std::size_t step : {std::size_t{61}, std::size_t{1024}, std::size_t{100'000}}) {
      Blake3 hash;
      for (std::size_t at = 0; at < input.size(); at += step) {
        hash.update(input.data() + at, step < input.size() - at ? step : input.size() - at, 2);
      }
      CHECK(hex(hash.digest()) == vector.hex);
    }
  }
}

void keyed_agrees_with_the_reference() {
  Digest key{};
  for (std::size_t index = 0; index < key.size(); ++index) key[index] = static_cast<std::uint8_t>(kKey[index]);
  const auto input = pattern(kKeyed.size_bytes);
  CHECK(hex(blake3_keyed(key, input.data(), input.size(), 1)) == kKeyed.hex);
}

// Spans as long as the vectors, one behind the other: their bytes are not the pattern from its start, so each is judged
// by the one-shot call, which the vectors judge.
void pieces_make_the_digest_of_the_whole() {
  const auto input = pattern(100 * 1024 + 17);
  for (const std::size_t size_bytes : {std::size_t{1025}, std::size_t{8192}, std::size_t{70'001}, input.size()}) {
    for (const std::size_t piece_bytes :
         {std::size_t{1024}, std::size_t{3072}, std::size_t{4096}, std::size_t{52'224}}) {
      std::vector<Digest> values;
      for (std::size_t begin = 0; begin < size_bytes; begin += piece_bytes) {
        Blake3Piece piece(begin / 1024);
        const std::size_t end = std::min(size_bytes, begin + piece_bytes);
        for (std::size_t at = begin; at < end; at += 700)
          piece.update(input.data() + at, std::min<std::size_t>(700, end - at));
        for (const Digest& value : piece.values()) values.push_back(value);
      }
      Digest digest{};
      const Status status = blake3_join(values.data(), values.size(), size_bytes, piece_bytes, &digest);
      if (size_bytes <= piece_bytes) {
        CHECK(status.code == Code::invalid_argument);
        continue;
      }
      CHECK(status.ok());
      CHECK(digest == blake3(input.data(), size_bytes, 1));
      CHECK(blake3_join(values.data(), values.size() - 1, size_bytes, piece_bytes, &digest).code ==
            Code::invalid_argument);
      values.emplace_back();
      CHECK(blake3_join(values.data(), values.size(), size_bytes, piece_bytes, &digest).code == Code::invalid_argument);
    }
  }
  Digest digest{};
  CHECK(blake3_join(nullptr, 0, 1U << 20, 0, &digest).code == Code::invalid_argument);
  CHECK(blake3_join(nullptr, 0, 1U << 20, 1000, &digest).code == Code::invalid_argument);
  CHECK(blake3_join(nullptr, 0, ~std::uint64_t{0}, 1024, &digest).code == Code::invalid_argument);
}

// The longest stacks: far from the start, with sizes that rise and fall.
void a_piece_may_start_anywhere() {
  const auto input = pattern(3 * 1024 * 1024);
  for (const std::uint64_t first : {std::uint64_t{1}, (std::uint64_t{1} << 54) - 1025, (std::uint64_t{1} << 40) + 1}) {
    Blake3Piece piece(first);
    piece.update(input.data(), input.size());
    Blake3Piece other(first);
    for (std::size_t at = 0; at < input.size(); at += 4096 * 3) {
      other.update(input.data() + at, std::min<std::size_t>(4096 * 3, input.size() - at));
    }
    CHECK(piece.values() == other.values());
    CHECK(piece.values().size() > 2);
  }
}

void spans_agree_with_one_hash_at_a_time() {
  std::vector<std::uint64_t> ends;
  for (const Vector& vector : kVectors) ends.push_back((ends.empty() ? 0 : ends.back()) + vector.size_bytes);
  const std::size_t count = ends.size();
  const auto input = pattern(static_cast<std::size_t>(ends.back()));
  Digest key{};
  key[3] = 9;
  std::vector<Digest> plain(count);
  std::vector<Digest> keyed(count);
  CHECK(blake3_spans(input.data(), input.size(), ends.data(), count, plain.data(), 1).ok());
  CHECK(blake3_keyed_spans(key, input.data(), input.size(), ends.data(), count, keyed.data(), 2).ok());
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t begin = i == 0 ? 0 : ends[i - 1];
    const auto size = static_cast<std::size_t>(ends[i] - begin);
    CHECK(plain[i] == blake3(input.data() + begin, size, 1));
    CHECK(keyed[i] == blake3_keyed(key, input.data() + begin, size, 1));
  }
  const Digest untouched = plain[0];
  const std::uint64_t falling[] = {50, 40};
  CHECK(blake3_spans(input.data(), input.size(), falling, 2, plain.data(), 1).code == Code::invalid_argument);
  CHECK(plain[0] == untouched);
}

void xet_takes_what_it_would_be_given() {
  std::vector<std::uint8_t> input(400'000);
  std::uint32_t state = 1;
  for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  std::vector<std::uint64_t> ends(max_chunks(input.size()));
  std::size_t count = 0;
  CHECK(chunk_boundaries(input.data(), input.size(), 1, ends.data(), ends.size(), &count).ok());
  XetHasher given;
  CHECK(given.add(input.data(), input.size(), ends.data(), count, 1).ok());
  XetHasher taking;
  std::size_t taken = 0;
  CHECK(taking.take(input.data(), 1000, false, 1, &taken).ok());
  CHECK(taken == 0);
  CHECK(taking.take(input.data(), 300'000, false, 1, &taken).ok());
  CHECK(taken > 0 && taken < 300'000);
  std::size_t rest = 0;
  CHECK(taking.take(input.data() + taken, input.size() - taken, true, 2, &rest).ok());
  CHECK(taken + rest == input.size());
  CHECK(taking.digest() == given.digest());
}

void xet_refuses_ends_that_do_not_rise() {
  const auto input = pattern(100);
  const std::uint64_t falling[] = {50, 40};
  const std::uint64_t beyond[] = {50, 101};
  const std::uint64_t good[] = {50, 100};
  XetHasher hasher;
  const Digest empty = hasher.digest();
  CHECK(empty == Digest{});
  CHECK(hasher.add(input.data(), input.size(), falling, 2, 1).code == Code::invalid_argument);
  CHECK(hasher.add(input.data(), input.size(), beyond, 2, 1).code == Code::invalid_argument);
  CHECK(hasher.digest() == empty);
  CHECK(hasher.add(input.data(), input.size(), good, 2, 1).ok());
  CHECK(hasher.digest() != empty);
}

}  // namespace

int main() {
  on_every_isa([] {
    one_shot_and_streaming_agree_with_the_reference();
    keyed_agrees_with_the_reference();
    pieces_make_the_digest_of_the_whole();
    a_piece_may_start_anywhere();
    spans_agree_with_one_hash_at_a_time();
    xet_takes_what_it_would_be_given();
    xet_refuses_ends_that_do_not_rise();
  });
  return finish();
}

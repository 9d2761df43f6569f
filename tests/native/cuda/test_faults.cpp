// Calls of the runtime that fail, one after the other, in everything that allocates, copies, launches and waits: the
// failure is told, no memory is kept, and the next call works as if nothing had been.
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "check.h"
#include "cuda/simt.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/codec.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/hash.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;
namespace emulator = textnlp_fast::simt::emulator;

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes noise(std::size_t size, std::uint8_t seed) {
  Bytes bytes(size);
  std::uint32_t state = seed + 1U;
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

// `call` makes the output anew; `right` looks at it. A call of the runtime more is let through each time.
void every_failure(const std::function<Status()>& call, const std::function<bool()>& right) {
  constexpr std::size_t kMost = 100;
  const std::size_t before = emulator::live_blocks();
  std::size_t number = 0;
  for (; number < kMost; ++number) {
    emulator::fail_call(number);
    const Status status = call();
    CHECK(emulator::live_blocks() == before);
    if (status.ok()) break;  // past its last call
    CHECK(status.code == Code::device_error);
    emulator::fail_call(kMost * kMost);
    CHECK(call().ok());
    CHECK(right());
  }
  // Where it succeeded nothing had failed yet: more than a few calls are made by all of these.
  CHECK(number >= 4 && number < kMost);
  CHECK(right());
  emulator::fail_call(kMost * kMost);
}

void hash() {
  const Bytes data = noise(20000, 1);
  const DeviceSpan span{data.data(), data.size()};
  Digest digest{};
  const Digest expected = blake3(data.data(), data.size(), 1);
  every_failure([&] { return cuda_blake3_now(&span, 1, digest.data(), nullptr); }, [&] { return digest == expected; });
  const Digest key = expected;
  const Digest keyed = blake3_keyed(key, data.data(), data.size(), 1);
  every_failure([&] { return cuda_blake3_keyed_now(key.data(), &span, 1, digest.data(), nullptr); },
                [&] { return digest == keyed; });
}

void chunks() {
  const Bytes data = noise(200000, 2);
  const DeviceSpan span{data.data(), data.size()};
  std::vector<std::uint64_t> expected(max_chunks(data.size()));
  std::size_t count = 0;
  CHECK(chunk_boundaries(data.data(), data.size(), 1, expected.data(), expected.size(), &count).ok());
  std::vector<std::uint64_t> ends(expected.size());
  std::uint64_t found = 0;
  every_failure([&] { return cuda_chunk_now(&span, 1, ends.data(), &found, nullptr); },
                [&] { return found == count && std::memcmp(ends.data(), expected.data(), count * 8) == 0; });
}

void differences() {
  const Bytes a = noise(5000, 3);
  const Bytes b = noise(5000, 4);
  const DevicePair pair{a.data(), b.data(), a.size(), Dtype::u8};
  std::uint64_t changed = 0;
  for (std::size_t i = 0; i < a.size(); ++i) changed += a[i] != b[i] ? 1 : 0;
  DeviceDiff found{};
  every_failure([&] { return cuda_diff_now(&pair, 1, &found, nullptr); }, [&] { return found.changed == changed; });
}

void frames() {
  const Bytes data = noise(4096, 5);
  Bytes payload(encode_bound(data.size(), kDefaultFrameSize));
  std::size_t written = 0;
  CHECK(encode(Dtype::u8, data.data(), nullptr, data.size(), {}, payload.data(), payload.size(), &written).ok());
  Bytes out(data.size());
  const DecodeJob job{payload.data(), written, nullptr, out.data(), out.size()};
  std::size_t failed = 0;
  every_failure([&] { return cuda_decode_payloads(&job, 1, nullptr, &failed); }, [&] { return out == data; });
  CHECK(failed == 1);
}

void low_rank() {
  const float a = 2;
  const float b = 3;
  const float base = 1;
  float out = 0;
  const auto bytes = [](const float& value) { return reinterpret_cast<const std::uint8_t*>(&value); };
  const LowRank recipe{Dtype::f32, 1, 1,        1, Dtype::f32, Dtype::f32,
                       bytes(a),   4, bytes(b), 4, 0.5F,       MergeRounding::once};
  every_failure(
      [&] {
        return cuda_apply_low_rank_now(recipe, bytes(base), 0, 1, reinterpret_cast<std::uint8_t*>(&out), nullptr);
      },
      [&] { return out == 4; });
}

struct Nothing {
  static constexpr unsigned kThreads = simt::kWarp;
  void operator()() const {}
};

void grids() {
  CHECK(simt::launch(Nothing{}, 0, 0, nullptr).ok());
  CHECK(simt::launch(Nothing{}, 2, 0, nullptr).ok());
  const Status status = simt::launch(Nothing{}, std::size_t{1} << 31, 0, nullptr);
  CHECK(status.code == Code::invalid_argument);
  CHECK(simt::launch(Nothing{}, (std::size_t{1} << 32) + 1, 0, nullptr).code == Code::invalid_argument);
}

}  // namespace

int main() {
  hash();
  chunks();
  differences();
  frames();
  low_rank();
  grids();
  return finish();
}

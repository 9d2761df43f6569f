// The encoder of frames for devices, kernels and launches, lane by lane: its payloads are the core's, byte by byte, at
// any alignment, many tensors in one call; nothing is written behind an output that is too small. And the order of
// edges, on which payloads depend.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "check.h"
#include "codec/edge_order.h"
#include "textnlp_fast/codec.h"
#include "textnlp_fast/cuda.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Random {
  std::uint64_t state;
  std::uint32_t next() {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state >> 33);
  }
  std::uint32_t below(std::uint32_t bound) { return next() % bound; }
};

struct Case {
  Dtype dtype;
  Bytes target;
  Bytes base;
  bool alone;
};

// Elements whose upper bytes are alike, of which one in `every` moves a little.
Case change(Dtype dtype, std::size_t elements, unsigned every, std::uint64_t seed) {
  const std::size_t width = element_size(dtype);
  Case made{dtype, Bytes(elements * width), Bytes(elements * width), seed % 4 == 0};
  Random random{seed};
  for (std::size_t i = 0; i < made.base.size(); ++i) {
    const bool top = i % width == width - 1;
    made.base[i] = static_cast<std::uint8_t>(top ? 0x3b + random.below(3) : random.next());
  }
  made.target = made.base;
  for (std::size_t i = 0; i < elements; ++i) {
    if (random.below(every) == 0) made.target[i * width] = static_cast<std::uint8_t>(random.next());
  }
  return made;
}

Bytes by_core(const Case& one, std::size_t frame) {
  Bytes payload(encode_bound(one.target.size(), frame));
  std::size_t written = 0;
  CHECK(encode(one.dtype, one.target.data(), one.alone ? nullptr : one.base.data(), one.target.size(),
               EncodeOptions{frame, 1}, payload.data(), payload.size(), &written)
            .ok());
  payload.resize(written);
  return payload;
}

// Workspace on a round address.
struct Workspace {
  std::vector<std::uint64_t> room;
  std::size_t size;
  explicit Workspace(std::size_t bytes) : room(bytes / 8 + 16), size(bytes) {}
  void* at() { return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(room.data()) + 63) / 64 * 64); }
};

// Encodes all at once with the least or the best workspace; outputs lie `shift` bytes off a round address.
void all_at_once(const std::vector<Case>& cases, std::size_t frame, bool best_room, unsigned shift, bool short_one) {
  std::vector<Bytes> expected;
  std::vector<Bytes> outs;
  std::vector<EncodeTensor> tensors;
  std::size_t frames = 0;
  std::size_t largest = 1;
  for (const Case& one : cases) {
    expected.push_back(by_core(one, frame));
    outs.emplace_back(shift + encode_bound(one.target.size(), frame) + 16, 0xA5);
    frames += (one.target.size() + frame - 1) / frame;
    largest = std::max(largest, std::min(frame, one.target.size()));
  }
  for (std::size_t n = 0; n < cases.size(); ++n) {
    const Case& one = cases[n];
    const std::size_t capacity = short_one && n == 1 ? expected[n].size() - 1 : encode_bound(one.target.size(), frame);
    tensors.push_back({one.target.data(), one.alone ? nullptr : one.base.data(), outs[n].data() + shift,
                       one.target.size(), capacity, one.dtype});
  }
  std::size_t least = 0;
  std::size_t best = 0;
  CHECK(cuda_encode_workspace(cases.size(), frames, largest, &least, &best).ok());
  CHECK(least <= best);
  Workspace workspace(best_room ? best : least);
  std::vector<unsigned long long> sizes(cases.size(), 77);
  CHECK(cuda_encode(tensors.data(), tensors.size(), frames, frame, largest, workspace.at(), workspace.size,
                    sizes.data(), nullptr)
            .ok());
  for (std::size_t n = 0; n < cases.size(); ++n) {
    CHECK(sizes[n] == expected[n].size());
    std::size_t there = expected[n].size();
    if (short_one && n == 1) {
      // The last frame was left out, and all that lies behind the end is as it was.
      there = 0;
      for (std::size_t i = shift + tensors[n].capacity; i < outs[n].size(); ++i) CHECK(outs[n][i] == 0xA5);
    }
    if (!CHECK(there == 0 || std::memcmp(outs[n].data() + shift, expected[n].data(), there) == 0)) {
      std::fprintf(stderr, "  tensor %zu, dtype %u, %zu bytes, frame %zu\n", n, static_cast<unsigned>(cases[n].dtype),
                   cases[n].target.size(), frame);
    }
    for (std::size_t i = 0; i < shift; ++i) CHECK(outs[n][i] == 0xA5);
    for (std::size_t i = shift + encode_bound(cases[n].target.size(), frame); i < outs[n].size(); ++i) {
      CHECK(outs[n][i] == 0xA5);
    }
  }
}

void many_tensors() {
  std::vector<Case> cases;
  std::uint64_t seed = 1;
  for (unsigned number = 0; number < kDtypeCount; ++number) {
    for (const std::size_t elements : {std::size_t{0}, std::size_t{1}, std::size_t{33}, std::size_t{900}}) {
      for (const unsigned every : {1u, 5u, 90u}) {
        cases.push_back(change(static_cast<Dtype>(number), elements, every, ++seed));
      }
    }
  }
  all_at_once(cases, 64, false, 0, false);
  all_at_once(cases, 1024, true, 3, false);
  all_at_once(cases, 1 << 20, true, 1, false);
}

void long_frames() {
  const std::vector<Case> cases = {change(Dtype::bf16, 40000, 1, 5), change(Dtype::bf16, 40000, 50, 6),
                                   change(Dtype::u8, 70000, 2, 8), change(Dtype::f32, 20000, 3, 9)};
  all_at_once(cases, 1 << 20, true, 5, false);
  all_at_once(cases, 4096, true, 0, true);
}

void refuses_wrong_calls() {
  EncodeTensor tensor{};
  unsigned long long size = 0;
  std::size_t least = 0;
  std::size_t best = 0;
  CHECK(cuda_encode_workspace(1, 1, 4096, &least, &best).ok());
  Workspace workspace(best);
  auto* const odd = static_cast<std::uint8_t*>(workspace.at()) + 8;
  CHECK(cuda_encode(&tensor, 1, 1, 100, 4096, workspace.at(), best, &size, nullptr).code == Code::invalid_argument);
  CHECK(cuda_encode(&tensor, 1, 1, 4096, 4096, workspace.at(), least - 1, &size, nullptr).code ==
        Code::invalid_argument);
  CHECK(cuda_encode(&tensor, 1, 1, 4096, 4096, odd, best, &size, nullptr).code == Code::invalid_argument);
  CHECK(cuda_encode(&tensor, 0, 0, 4096, 4096, workspace.at(), best, &size, nullptr).ok());
}

void edges_lie_as_they_always_did() {
#if defined(__GLIBCXX__)
  Random random{3};
  for (unsigned round = 0; round < 4000; ++round) {
    const std::size_t size = random.below(322);
    const std::uint32_t places = 1 + random.below(round % 3 == 0 ? 6 : 400);
    std::vector<Edge> ours;
    for (std::size_t i = 0; i < size; ++i) {
      // Some in the order that makes a quick sort slow, so that the heap comes to its turn.
      const double at = round % 5 == 0 ? static_cast<double>((i % 2 == 0 ? i : size - i) % places)
                                       : static_cast<double>(random.below(places));
      ours.push_back({at, static_cast<int>(i)});
    }
    std::vector<Edge> theirs = ours;
    edges::sort(ours.data(), static_cast<std::ptrdiff_t>(size));
    std::sort(theirs.begin(), theirs.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
    bool same = true;
    for (std::size_t i = 0; i < size; ++i) same = same && ours[i].change == theirs[i].change;
    CHECK(same);
  }
#endif
}

}  // namespace

int main() {
  edges_lie_as_they_always_did();
  many_tensors();
  long_frames();
  refuses_wrong_calls();
  return finish();
}

// The decoder of frames for devices, kernels and launches, lane by lane: what the CPU core encodes comes back bit for
// bit, in place and not, at any alignment, many tensors in one call; damaged frames are named and harm no other.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
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

constexpr Dtype kDtypes[] = {Dtype::u8,   Dtype::f8_e4m3, Dtype::f8_e5m2, Dtype::i16, Dtype::f16,
                             Dtype::bf16, Dtype::i32,     Dtype::f32,     Dtype::i64, Dtype::f64};

// Floats of sizes as weights have, integers of all.
Bytes weights(Dtype dtype, std::size_t elements, std::uint64_t seed) {
  const std::size_t width = element_size(dtype);
  Bytes bytes(elements * width);
  Random random{seed};
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random.next());
  const unsigned exponent = exponent_bits(dtype);
  if (exponent == 0) return bytes;
  for (std::size_t i = 0; i < elements; ++i) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &bytes[i * width], width);
    const auto mantissa = static_cast<unsigned>(width * 8 - 1 - exponent);
    const std::uint64_t middle = (std::uint64_t{1} << (exponent - 1)) - 3;
    unsigned drop = 0;
    while (drop < 6 && random.below(2) == 0) ++drop;
    const std::uint64_t field = middle > drop ? middle - drop : 0;
    bits &= ~(((std::uint64_t{1} << exponent) - 1) << mantissa);
    bits |= field << mantissa;
    std::memcpy(&bytes[i * width], &bits, width);
  }
  return bytes;
}

// Moves one element in `every` by up to `most` ULPs.
Bytes moved(const Bytes& base, Dtype dtype, unsigned every, unsigned most, std::uint64_t seed) {
  Bytes target = base;
  const std::size_t width = element_size(dtype);
  Random random{seed};
  for (std::size_t at = 0; at < base.size(); at += width) {
    if (random.below(every) != 0) continue;
    std::uint64_t bits = 0;
    std::memcpy(&bits, &base[at], width);
    const std::uint64_t by = 1 + random.below(most);
    bits = random.below(2) == 0 ? bits + by : bits - by;
    std::memcpy(&target[at], &bits, width);
  }
  return target;
}

// A first step of an optimiser: all bfloat16 elements by one amount, up, down or not at all.
Bytes stepped(const Bytes& base, float step, std::uint64_t seed) {
  Bytes target = base;
  Random random{seed};
  for (std::size_t at = 0; at < base.size(); at += 2) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, &base[at], 2);
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value = 0;
    std::memcpy(&value, &wide, 4);
    value += random.below(2) == 0 ? step : -step;
    std::uint32_t out = 0;
    std::memcpy(&out, &value, 4);
    if (random.below(200) != 0) bits = static_cast<std::uint16_t>((out + 0x7fff + ((out >> 16) & 1)) >> 16);
    if (random.below(3000) == 0) bits = 0x7fc1;
    std::memcpy(&target[at], &bits, 2);
  }
  return target;
}

Bytes encoded(Dtype dtype, const Bytes& target, const Bytes* base, std::size_t frame) {
  Bytes payload(encode_bound(target.size(), frame));
  std::size_t written = 0;
  CHECK(encode(dtype, target.data(), base == nullptr ? nullptr : base->data(), target.size(), EncodeOptions{frame, 1},
               payload.data(), payload.size(), &written)
            .ok());
  payload.resize(written);
  return payload;
}

std::string modes_seen;

void note_modes(const std::vector<DeviceFrame>& frames) {
  static const char* const names[] = {"same", "raw", "planes", "delta", "sparse", "difference", "learned"};
  for (const DeviceFrame& frame : frames) {
    std::string name = names[static_cast<unsigned>(frame.mode)];
    if (frame.mode == FrameMode::sparse) name.append(1, '/').append(1, static_cast<char>('0' + frame.body_dev[0]));
    name += ' ';
    if (modes_seen.find(name) == std::string::npos) modes_seen += name;
  }
}

std::size_t most_elements(const std::vector<DeviceFrame>& frames) {
  std::size_t most = 0;
  for (const DeviceFrame& frame : frames) {
    const std::size_t elements = frame.decoded_size / element_size(frame.dtype);
    most = elements > most ? elements : most;
  }
  return most;
}

std::uint32_t run(const std::vector<DeviceFrame>& frames) {
  std::size_t least = 0;
  std::size_t best = 0;
  const std::size_t largest = most_elements(frames);
  CHECK(cuda_decode_workspace(frames.size(), largest, &least, &best).ok());
  CHECK(least <= best);
  std::vector<std::uint64_t> workspace(best / 8 + 3);
  auto at = reinterpret_cast<std::uintptr_t>(workspace.data());
  at = (at + 15) / 16 * 16;
  std::uint32_t bad = 0;
  CHECK(cuda_decode(frames.data(), frames.size(), largest, reinterpret_cast<void*>(at), best, &bad, nullptr).ok());
  return bad;
}

// The frames of one tensor, in place or not, its parts `shift` bytes off a round address.
void comes_back(Dtype dtype, const Bytes& target, const Bytes* base, std::size_t frame, unsigned shift) {
  const Bytes payload = encoded(dtype, target, base, frame);
  Bytes shifted(shift);
  shifted.insert(shifted.end(), payload.begin(), payload.end());
  for (const bool in_place : {false, true}) {
    if (in_place && base == nullptr) continue;
    Bytes from(shift);
    if (base != nullptr) from.insert(from.end(), base->begin(), base->end());
    Bytes out(shift + target.size() + 32, 0xA5);
    if (in_place) std::memcpy(out.data() + shift, base->data(), base->size());
    const std::uint8_t* const base_at = base == nullptr ? nullptr : in_place ? out.data() + shift : from.data() + shift;
    std::vector<DeviceFrame> frames(target.size() / 64 + 2);
    std::size_t count = 0;
    CHECK(list_frames(shifted.data() + shift, payload.size(), shifted.data() + shift, base_at, out.data() + shift,
                      target.size(), frames.data(), frames.size(), &count)
              .ok());
    frames.resize(count);
    note_modes(frames);
    CHECK(run(frames) == kNoFrame);
    const bool same = std::memcmp(out.data() + shift, target.data(), target.size()) == 0;
    if (!CHECK(same)) {
      std::fprintf(stderr, "  dtype %u, %zu bytes, frame %zu, shift %u, in place %d, mode %u\n",
                   static_cast<unsigned>(dtype), target.size(), frame, shift, in_place ? 1 : 0,
                   static_cast<unsigned>(frames[0].mode));
    }
    for (std::size_t i = shift + target.size(); i < out.size(); ++i) CHECK(out[i] == 0xA5);
  }
}

void every_type_and_change() {
  std::uint64_t seed = 1;
  for (const Dtype dtype : kDtypes) {
    for (const std::size_t elements : {std::size_t{1}, std::size_t{33}, std::size_t{700}, std::size_t{5000}}) {
      const Bytes base = weights(dtype, elements, ++seed);
      const auto shift = static_cast<unsigned>(seed % 3 == 0 ? 1 : seed % 3 == 1 ? 0 : 6);
      comes_back(dtype, base, nullptr, 4096, shift);
      comes_back(dtype, base, &base, 4096, shift);
      for (const unsigned every : {1u, 4u, 60u, 900u}) {
        comes_back(dtype, moved(base, dtype, every, 3, ++seed), &base, 4096, shift);
        comes_back(dtype, moved(base, dtype, every, 40000, ++seed), &base, 8192, shift);
      }
      comes_back(dtype, weights(dtype, elements, ++seed), &base, 4096, shift);
    }
  }
}

void large_frames() {
  const Bytes base = weights(Dtype::bf16, 70000, 3);
  comes_back(Dtype::bf16, base, nullptr, 1 << 20, 0);
  comes_back(Dtype::bf16, moved(base, Dtype::bf16, 2, 3, 4), &base, 1 << 20, 0);
  // Enough changes for lanes, too few for a delta.
  comes_back(Dtype::bf16, moved(base, Dtype::bf16, 7, 3, 5), &base, 1 << 20, 0);
  comes_back(Dtype::bf16, moved(base, Dtype::bf16, 200, 2, 6), &base, 1 << 20, 1);
  comes_back(Dtype::bf16, stepped(base, 1e-4F, 7), &base, 1 << 20, 0);
  comes_back(Dtype::bf16, stepped(base, 1e-3F, 8), &base, 1 << 16, 3);
  const Bytes small = weights(Dtype::u8, 9000, 9);
  Bytes nibbles = small;
  Random random{10};
  // Two numbers of four bits, each of which moves a little.
  for (auto& byte : nibbles) {
    const std::uint32_t high = (byte >> 4) + random.below(3) + random.below(3) - 2;
    const std::uint32_t low = byte + random.below(3) + random.below(3) - 2;
    byte = static_cast<std::uint8_t>(high << 4 | (low & 15));
  }
  comes_back(Dtype::u8, nibbles, &small, 1 << 20, 0);
}

// Many tensors of all kinds in one call; each is then damaged in turn, and only it suffers.
void batch_and_damage() {
  struct Tensor {
    Bytes base, target, payload, out;
  };
  std::vector<Tensor> tensors;
  Random random{11};
  for (unsigned n = 0; n < 40; ++n) {
    const Dtype dtype = kDtypes[random.below(std::size(kDtypes))];
    Tensor tensor;
    tensor.base = weights(dtype, 1 + random.below(900), n + 50);
    tensor.target = moved(tensor.base, dtype, 1 + random.below(70), 9, n + 90);
    tensor.payload = encoded(dtype, tensor.target, n % 4 == 0 ? nullptr : &tensor.base, 4096);
    tensors.push_back(std::move(tensor));
  }
  for (unsigned round = 0; round < 60; ++round) {
    const unsigned victim = random.below(static_cast<std::uint32_t>(tensors.size()));
    Bytes damaged = tensors[victim].payload;
    // Round 0: none is damaged.
    if (round != 0) {
      const std::uint32_t at = random.below(static_cast<std::uint32_t>(damaged.size()));
      damaged[at] = static_cast<std::uint8_t>(damaged[at] ^ (1u << random.below(8)));
    }
    std::vector<DeviceFrame> frames;
    std::vector<unsigned> owner;
    bool listed = true;
    for (unsigned n = 0; n < tensors.size(); ++n) {
      Tensor& tensor = tensors[n];
      const Bytes& payload = n == victim ? damaged : tensor.payload;
      tensor.out.assign(tensor.target.size(), 0);
      std::vector<DeviceFrame> mine(4);
      std::size_t count = 0;
      const Status status = list_frames(payload.data(), payload.size(), payload.data(), tensor.base.data(),
                                        tensor.out.data(), tensor.out.size(), mine.data(), mine.size(), &count);
      if (!status.ok()) {
        CHECK(n == victim && round != 0);
        listed = false;
        break;
      }
      mine.resize(count);
      frames.insert(frames.end(), mine.begin(), mine.end());
      owner.insert(owner.end(), count, n);
    }
    if (!listed) continue;
    const std::uint32_t bad = run(frames);
    CHECK(bad == kNoFrame || owner[bad] == victim);
    CHECK(round != 0 || bad == kNoFrame);
    Bytes by_core(tensors[victim].target.size());
    const bool core_takes_it =
        decode(damaged.data(), damaged.size(), tensors[victim].base.data(), by_core.data(), by_core.size(), 1).ok();
    CHECK(core_takes_it == (bad == kNoFrame));
    for (unsigned n = 0; n < tensors.size(); ++n) {
      if (n != victim) CHECK(tensors[n].out == tensors[n].target);
    }
    if (core_takes_it) CHECK(tensors[victim].out == by_core);
  }
}

void refuses_wrong_calls() {
  const Bytes base = weights(Dtype::bf16, 64, 1);
  const Bytes payload = encoded(Dtype::bf16, base, &base, 4096);
  Bytes out(base.size());
  DeviceFrame frame;
  std::size_t count = 0;
  CHECK(!list_frames(payload.data(), payload.size(), payload.data(), nullptr, out.data(), out.size(), &frame, 1, &count)
             .ok());
  CHECK(!list_frames(payload.data(), payload.size(), payload.data(), base.data(), out.data(), out.size(), &frame, 0,
                     &count)
             .ok());
  CHECK(!list_frames(payload.data(), payload.size(), payload.data(), base.data(), out.data(), out.size() + 2, &frame, 1,
                     &count)
             .ok());
  std::uint32_t bad = 0;
  CHECK(!cuda_decode(&frame, 1, 64, out.data(), 8, &bad, nullptr).ok());
}

}  // namespace

int main() {
  every_type_and_change();
  large_frames();
  batch_and_damage();
  refuses_wrong_calls();
  std::printf("modes: %s\n", modes_seen.c_str());
  for (const char* mode :
       {"same ", "raw ", "planes ", "delta ", "sparse/0 ", "sparse/1 ", "sparse/2 ", "difference ", "learned "}) {
    CHECK(modes_seen.find(mode) != std::string::npos);
  }
  return finish();
}

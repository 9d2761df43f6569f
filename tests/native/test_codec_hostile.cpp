// The frame decoder on damaged frames, below Python, for sanitizer builds: every buffer is its own allocation of its
// exact size, at odd addresses too, so that a byte read or written outside is reported. Every instruction set must give
// the same verdict and, where that is good, the same bytes. Stands alone: links with the core and returns non-zero on
// failure.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "textnlp_fast/codec.h"
#include "textnlp_fast/cpu.h"

namespace {

using namespace textnlp_fast;
using Bytes = std::vector<std::uint8_t>;

unsigned failures = 0;
std::uint64_t decodes = 0;

void expect(bool held, const char* what, unsigned line) {
  if (held) return;
  ++failures;
  std::fprintf(stderr, "line %u, on %s: not so: %s\n", line, isa_name(), what);
}
#define EXPECT(...) expect(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __LINE__)

// splitmix64 (Steele, Lea, Flood 2014): the same numbers on every platform.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(next() % bound); }
};

// A copy in an allocation of its own that ends with it and begins `offset` bytes before it.
class Placed {
 public:
  Placed(const Bytes& bytes, std::size_t offset) : memory_(new std::uint8_t[bytes.size() + offset]), offset_(offset) {
    std::copy(bytes.begin(), bytes.end(), memory_.get() + offset);
  }
  std::uint8_t* data() { return memory_.get() + offset_; }

 private:
  std::unique_ptr<std::uint8_t[]> memory_;
  std::size_t offset_;
};

struct Outcome {
  Code code;
  Bytes tensor;  // empty unless ok
  bool operator==(const Outcome& other) const { return code == other.code && tensor == other.tensor; }
};

enum class Base { none, apart, in_place };

Outcome decode_once(const Bytes& payload, const Bytes& base, std::size_t size, Base how, std::size_t offset) {
  Placed in(payload, offset);
  Placed prior(base, offset);
  Placed out(how == Base::in_place ? base : Bytes(size, 0xa5), offset);
  const std::uint8_t* const against = how == Base::none ? nullptr : how == Base::apart ? prior.data() : out.data();
  ++decodes;
  const Status status = decode(in.data(), payload.size(), against, out.data(), size, 1);
  if (!status.ok()) {
    EXPECT(status.code == Code::corrupt || status.code == Code::truncated || status.code == Code::unsupported ||
           (status.code == Code::invalid_argument && how == Base::none));
    EXPECT(status.position <= payload.size());
    return {status.code, {}};
  }
  return {Code::ok, Bytes(out.data(), out.data() + size)};
}

// Decodes on every instruction set; all must agree.
Outcome decode_everywhere(const Bytes& payload, const Bytes& base, std::size_t size, Base how = Base::apart) {
  const char* names[8];
  const unsigned count = available_isas(names, 8);
  Outcome first{Code::internal, {}};
  for (unsigned index = 0; index < count; ++index) {
    EXPECT(force_isa(names[index]));
    Outcome outcome = decode_once(payload, base, size, how, decodes % 3);
    if (index == 0) {
      first = std::move(outcome);
    } else {
      EXPECT(outcome == first);
    }
  }
  return first;
}

struct Sample {
  Dtype dtype;
  Bytes target;
  Bytes base;
  Bytes payload;
};

enum class Change { sparse, dense, wide, step, none };

// One step of an optimiser from the number that the bits stand for: up or down by one amount. Of bf16 and f32 alone.
std::uint64_t stepped(std::uint64_t value, std::size_t element, bool up) {
  const unsigned shift = element == 2 ? 16 : 0;
  auto bits = static_cast<std::uint32_t>(value << shift);
  float number;
  std::memcpy(&number, &bits, sizeof number);
  number += up ? 0x1.4p-10F : -0x1.4p-10F;
  std::memcpy(&bits, &number, sizeof bits);
  if (shift != 0) bits += 0x7fff + ((bits >> 16) & 1);
  return bits >> shift;
}

// Elements spread over a few exponents, moved by a few steps: deltas, and planes where there is no base.
Sample make_sample(Dtype dtype, std::size_t count, Change change, std::size_t frame_size, std::uint64_t seed) {
  Random random{seed};
  const std::size_t element = element_size(dtype);
  Sample sample{dtype, Bytes(count * element), Bytes(count * element), {}};
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t exponent = 100 + random.below(40) + random.below(3);
    std::uint64_t value = random.next() & ((std::uint64_t{1} << (element * 8 - 1)) - 1);
    if (element > 1) value = (value & ((std::uint64_t{1} << (element * 8 - 9)) - 1)) | exponent << (element * 8 - 9);
    if (element == 1) value = random.below(4);
    std::uint64_t move = 0;
    if (change == Change::sparse && random.below(20) == 0) move = 1 + random.below(3);
    if (change == Change::dense) move = random.below(4) * random.below(4);
    if (change == Change::wide) move = random.next() >> (1 + random.below(63));
    if (random.below(2) == 0) move = 0 - move;
    std::uint64_t moved = value + move;
    if (change == Change::step && random.below(100) != 0) moved = stepped(value, element, random.below(2) == 0);
    std::memcpy(sample.base.data() + i * element, &value, element);
    std::memcpy(sample.target.data() + i * element, &moved, element);
  }
  // Every instruction set, from allocations of the exact size, makes the same bytes.
  const char* names[8];
  const unsigned sets = available_isas(names, 8);
  for (unsigned index = 0; index < sets; ++index) {
    EXPECT(force_isa(names[index]));
    Placed target(sample.target, index + 1);
    Placed base(sample.base, index + 1);
    Placed out(Bytes(encode_bound(sample.target.size(), frame_size)), index + 1);
    std::size_t written = 0;
    const Status status =
        encode(dtype, target.data(), change == Change::none ? nullptr : base.data(), sample.target.size(),
               {frame_size, 1}, out.data(), encode_bound(sample.target.size(), frame_size), &written);
    EXPECT(status.ok());
    const Bytes payload(out.data(), out.data() + written);
    if (index == 0) sample.payload = payload;
    EXPECT(payload == sample.payload);
  }
  return sample;
}

void check_whole(const Sample& sample) {
  for (const Base how : {Base::apart, Base::in_place}) {
    const Outcome outcome = decode_everywhere(sample.payload, sample.base, sample.target.size(), how);
    EXPECT(outcome.code == Code::ok && outcome.tensor == sample.target);
  }
  (void)decode_everywhere(sample.payload, sample.base, sample.target.size(), Base::none);
}

// The next place to damage: of long payloads every one in the head, with the tables, and some of the rest.
std::size_t next_place(std::size_t at, std::size_t size) {
  constexpr std::size_t kShort = 4096;
  constexpr std::size_t kHead = 400;
  return at + (size > kShort && at >= kHead ? 97 : 1);
}

void check_cuts(const Sample& sample) {
  const std::size_t size = sample.payload.size();
  for (std::size_t end = 0; end < size; end = next_place(end, size)) {
    const Bytes cut(sample.payload.begin(), sample.payload.begin() + static_cast<std::ptrdiff_t>(end));
    EXPECT(decode_everywhere(cut, sample.base, sample.target.size()).code == Code::truncated);
  }
}

void check_flips(const Sample& sample) {
  Bytes broken = sample.payload;
  for (std::size_t at = 0; at < broken.size(); at = next_place(at, broken.size())) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      broken[at] = static_cast<std::uint8_t>(sample.payload[at] ^ 1u << bit);
      (void)decode_everywhere(broken, sample.base, sample.target.size());
    }
    broken[at] = sample.payload[at];
  }
}

void check_many_faults(const Sample& sample, unsigned rounds, std::uint64_t seed) {
  Random random{seed};
  for (unsigned round = 0; round < rounds; ++round) {
    Bytes broken = sample.payload;
    for (std::size_t fault = 1 + random.below(6); fault > 0; --fault) {
      // Near the front, where headers and tables are, more often than not.
      const std::size_t at =
          random.below(random.below(2) == 0 ? std::min<std::size_t>(broken.size(), 60) : broken.size());
      broken[at] = static_cast<std::uint8_t>(random.next());
    }
    (void)decode_everywhere(broken, sample.base, sample.target.size(),
                            random.below(4) == 0 ? Base::in_place : Base::apart);
  }
}

// A good header, then noise: straight into the readers of tables and segments.
void check_garbage(unsigned rounds, std::uint64_t seed) {
  Random random{seed};
  for (unsigned round = 0; round < rounds; ++round) {
    const std::size_t size = 8 * (32 + random.below(64));
    const std::size_t body = 1 + random.below(size);
    Bytes payload = {static_cast<std::uint8_t>(0x12 + random.below(3)), static_cast<std::uint8_t>(random.below(16))};
    std::size_t value = size;
    for (; value >= 0x80; value >>= 7) payload.push_back(static_cast<std::uint8_t>(value | 0x80));
    payload.push_back(static_cast<std::uint8_t>(value));
    for (unsigned shift = 0; shift < 24; shift += 8) payload.push_back(static_cast<std::uint8_t>(body >> shift));
    const bool small = random.below(2) == 0;
    for (std::size_t i = 0; i < body; ++i) {
      payload.push_back(static_cast<std::uint8_t>(small && i < 12 ? random.below(16) : random.next()));
    }
    Bytes base(size);
    for (std::uint8_t& byte : base) byte = static_cast<std::uint8_t>(random.next());
    (void)decode_everywhere(payload, base, size);
  }
}

}  // namespace

int main() {
  const Sample samples[] = {
      make_sample(Dtype::bf16, 300, Change::sparse, 1 << 20, 1),
      make_sample(Dtype::bf16, 400, Change::dense, 1 << 20, 2),
      make_sample(Dtype::f16, 333, Change::wide, 1 << 20, 3),
      make_sample(Dtype::bf16, 700, Change::none, 1 << 20, 4),
      make_sample(Dtype::f32, 150, Change::dense, 1 << 20, 5),
      make_sample(Dtype::f64, 90, Change::dense, 1 << 20, 6),
      make_sample(Dtype::u8, 600, Change::none, 1 << 20, 7),
      make_sample(Dtype::i8, 600, Change::sparse, 1 << 20, 8),
      make_sample(Dtype::bf16, 900, Change::sparse, 512, 9),
      make_sample(Dtype::u16, 500, Change::dense, 1 << 20, 10),
      make_sample(Dtype::f32, 1500, Change::none, 1 << 20, 11),
      make_sample(Dtype::bf16, 1200, Change::step, 1 << 20, 12),
      make_sample(Dtype::bf16, 17000, Change::dense, 1 << 20, 14),
      make_sample(Dtype::i8, 8300, Change::dense, 1 << 20, 15),
      make_sample(Dtype::f32, 900, Change::step, 1 << 20, 13),
  };
  std::uint64_t seed = 100;
  bool seen[7] = {};
  bool coders[3] = {};
  for (const Sample& sample : samples) {
    FrameInfo info;
    EXPECT(read_frame_header(sample.payload.data(), sample.payload.size(), &info).ok());
    seen[static_cast<unsigned>(info.mode)] = true;
    if (info.mode == FrameMode::sparse) coders[sample.payload[info.header_size] % 3] = true;
    check_whole(sample);
    check_cuts(sample);
    check_flips(sample);
    check_many_faults(sample, 1500, seed++);
  }
  for (const FrameMode mode : {FrameMode::planes, FrameMode::delta, FrameMode::sparse, FrameMode::learned}) {
    EXPECT(seen[static_cast<unsigned>(mode)]);
  }
  EXPECT(coders[0] && coders[1] && coders[2]);
  check_garbage(10000, seed);
  // Long enough for several segments.
  for (const Dtype dtype : {Dtype::bf16, Dtype::u8, Dtype::f32, Dtype::f64}) {
    for (const Change change : {Change::sparse, Change::dense, Change::wide, Change::none}) {
      check_whole(make_sample(dtype, 140007, change, std::size_t{1} << 22, seed++));
    }
  }
  std::printf("%llu decodes, %u failures\n", static_cast<unsigned long long>(decodes), failures);
  return failures == 0 ? 0 : 1;
}

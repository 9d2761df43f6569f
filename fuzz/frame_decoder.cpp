// The frame decoder on hostile bytes: no crash, no read or write outside its buffers, and every instruction set gives
// the same verdict and, where that is good, the same tensor.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base_pattern.h"
#include "expect.h"
#include "textnlp_fast/codec.h"
#include "textnlp_fast/cpu.h"

namespace {

using namespace textnlp_fast;

constexpr std::size_t kMostDecoded = std::size_t{256} << 10;

// Decoded bytes of the whole frames that the payload starts with, by their headers, up to kMostDecoded.
std::size_t claimed_size(const std::uint8_t* payload, std::size_t size) {
  std::size_t at = 0;
  std::size_t decoded = 0;
  while (at < size) {
    FrameInfo info;
    const Status status = read_frame_header(payload + at, size - at, &info);
    if (!status.ok()) {
      EXPECT(status.position <= size - at);
      break;
    }
    EXPECT(info.header_size > 0 && info.header_size <= info.encoded_size && info.decoded_size <= kMaxFrameSize);
    if (info.encoded_size > size - at || info.decoded_size > kMostDecoded - decoded) break;
    at += info.encoded_size;
    decoded += info.decoded_size;
  }
  return decoded;
}

struct Outcome {
  Code code = Code::ok;
  std::vector<std::uint8_t> tensor;
  bool operator==(const Outcome&) const = default;
};

enum class Base { none, apart, in_place };

Outcome decode_once(const std::uint8_t* payload, std::size_t size, std::size_t decoded, Base base) {
  const auto pattern = fuzz::base_pattern(decoded);
  Outcome outcome;
  outcome.tensor = base == Base::in_place ? pattern : std::vector<std::uint8_t>(decoded);
  const std::uint8_t* against = base == Base::none    ? nullptr
                                : base == Base::apart ? pattern.data()
                                                      : outcome.tensor.data();
  const Status status = decode(payload, size, against, outcome.tensor.data(), decoded, 1);
  outcome.code = status.code;
  if (!status.ok()) {
    EXPECT(status.code != Code::internal && status.position <= size && *status.message != '\0');
    outcome.tensor.clear();
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* payload, std::size_t size) {
  const std::size_t decoded = claimed_size(payload, size);
  const char* names[8];
  const unsigned count = std::min(available_isas(names, 8), 8U);
  Outcome expected[3];
  for (unsigned isa = 0; isa < count; ++isa) {
    EXPECT(force_isa(names[isa]));
    for (const Base base : {Base::none, Base::apart, Base::in_place}) {
      Outcome outcome = decode_once(payload, size, decoded, base);
      Outcome& first = expected[static_cast<unsigned>(base)];
      if (isa == 0) {
        first = std::move(outcome);
      } else {
        EXPECT(outcome == first);
      }
    }
    // A tensor of another size than the frames make is refused, whatever they hold.
    EXPECT(decode_once(payload, size, decoded + 64, Base::apart).code != Code::ok);
  }
  EXPECT(expected[1] == expected[2]);
  return 0;
}

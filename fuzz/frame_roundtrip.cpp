// Any bytes, as any element type, against any base, in any frame size: the encoder stays in its bound, every
// instruction set writes the same frames, and the decoder gives back every bit.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "expect.h"
#include "textnlp_fast/codec.h"
#include "textnlp_fast/cpu.h"

namespace {

using namespace textnlp_fast;

struct Case {
  Dtype dtype;
  std::size_t frame_size;
  std::vector<std::uint8_t> target;
  std::vector<std::uint8_t> base;  // empty: none
};

// Three bytes of settings, then the base, repeated up to `fill` times, then what the target adds to it.
Case read_case(const std::uint8_t* data, std::size_t size) {
  Case wanted;
  wanted.dtype = static_cast<Dtype>(data[0] % kDtypeCount);
  wanted.frame_size = std::size_t{64} << (data[1] % 12);
  const bool has_base = (data[1] & 0x80) != 0;
  const std::size_t repeats = std::size_t{1} << (data[2] % 8);
  data += 3;
  size -= 3;
  const std::size_t half = has_base ? size / 2 : size;
  const std::size_t element = element_size(wanted.dtype);
  const std::size_t whole = std::min(half * repeats, std::size_t{64} << 10) / element * element;
  wanted.target.resize(whole);
  for (std::size_t index = 0; index < whole; ++index) wanted.target[index] = data[index % half];
  if (has_base) {
    wanted.base = wanted.target;
    // A base that differs in a few places: the second half of the input, once.
    for (std::size_t index = half; index < size && index - half < whole; ++index) {
      wanted.base[index - half] = static_cast<std::uint8_t>(wanted.base[index - half] + data[index]);
    }
  }
  return wanted;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8) return 0;
  const Case wanted = read_case(data, size);
  const std::size_t bytes = wanted.target.size();
  const std::uint8_t* base = wanted.base.empty() ? nullptr : wanted.base.data();
  const char* names[8];
  const unsigned count = std::min(available_isas(names, 8), 8U);
  std::vector<std::uint8_t> first;
  for (unsigned isa = 0; isa < count; ++isa) {
    EXPECT(force_isa(names[isa]));
    std::vector<std::uint8_t> payload(encode_bound(bytes, wanted.frame_size));
    std::size_t written = 0;
    const EncodeOptions options{wanted.frame_size, 1};
    EXPECT(encode(wanted.dtype, wanted.target.data(), base, bytes, options, payload.data(), payload.size(), &written)
               .ok());
    EXPECT(written <= payload.size());
    payload.resize(written);
    payload.shrink_to_fit();
    if (isa == 0) first = payload;
    EXPECT(payload == first);
    std::vector<std::uint8_t> back(bytes);
    EXPECT(decode(payload.data(), written, base, back.data(), bytes, 1).ok());
    EXPECT(back == wanted.target);
    if (base == nullptr) continue;
    back = wanted.base;
    EXPECT(decode(payload.data(), written, back.data(), back.data(), bytes, 1).ok());
    EXPECT(back == wanted.target);
  }
  return 0;
}

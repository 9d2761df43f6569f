// Writes the seeds of the frame decoder harness into the folder named on the command line: real frames of every mode
// and element type, so that the fuzzer starts behind the header checks. Made afresh, they follow the format.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../base_pattern.h"
#include "textnlp_fast/codec.h"

namespace {

using namespace textnlp_fast;

bool write_seed(const std::string& path, Dtype dtype, const std::vector<std::uint8_t>& target,
                const std::vector<std::uint8_t>* base, std::size_t frame_size) {
  std::vector<std::uint8_t> payload(encode_bound(target.size(), frame_size));
  std::size_t written = 0;
  const Status status = encode(dtype, target.data(), base == nullptr ? nullptr : base->data(), target.size(),
                               EncodeOptions{frame_size, 1}, payload.data(), payload.size(), &written);
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), status.message);
    return false;
  }
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) {
    std::perror(path.c_str());
    return false;
  }
  const bool whole = std::fwrite(payload.data(), 1, written, file) == written;
  return std::fclose(file) == 0 && whole;
}

// A floating point format by its numbers: seeds need no more than the normal ones.
struct Format {
  Dtype dtype;
  int mantissa;
  int bias;
  double step;
};

constexpr Format kFormats[] = {{Dtype::f16, 10, 15, 0.01}, {Dtype::bf16, 7, 127, 0.004}, {Dtype::f32, 23, 127, 0.0001}};

double value_of(std::uint32_t bits, const Format& format, unsigned width) {
  const std::uint32_t magnitude = bits & ~(1u << (width - 1));
  const int exponent = static_cast<int>(magnitude >> format.mantissa) - format.bias;
  const double fraction = std::ldexp(magnitude & ((1u << format.mantissa) - 1), -format.mantissa);
  return (magnitude == bits ? 1 : -1) * std::ldexp(1 + fraction, exponent);
}

std::uint32_t bits_of(double value, const Format& format, unsigned width) {
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(value), &exponent);
  // Rounding up to the next power of two carries into the exponent, as it should.
  const auto mantissa = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(fraction, format.mantissa + 1)));
  const auto exponents = static_cast<std::uint32_t>(exponent - 2 + format.bias) << format.mantissa;
  return (exponents + mantissa) | (value < 0 ? 1u << (width - 1) : 0u);
}

// One step of an optimiser: every number up or down by one amount, some left alone and some anywhere.
std::vector<std::uint8_t> stepped(const std::vector<std::uint8_t>& base, const Format& format) {
  auto target = base;
  const std::size_t element = element_size(format.dtype);
  const auto width = static_cast<unsigned>(8 * element);
  for (std::size_t index = 0; index * element < base.size(); ++index) {
    if (index % 149 == 5) continue;
    std::uint32_t bits = 0;
    std::memcpy(&bits, base.data() + index * element, element);
    const double step = index * 7 % 5 < 2 ? format.step : -format.step;
    bits = index % 307 == 7 ? bits ^ 0x55 : bits_of(value_of(bits, format, width) + step, format, width);
    std::memcpy(target.data() + index * element, &bits, element);
  }
  return target;
}

// Long enough for lanes: whole blocks that stay, and others where nearly all moves a little.
std::vector<std::uint8_t> half_moved(const std::vector<std::uint8_t>& base, std::size_t element) {
  constexpr std::size_t kBlock = 512;
  auto target = base;
  for (std::size_t index = 0; index * element < base.size(); ++index) {
    if (index / kBlock % 3 != 0 && index * 11 % 7 != 0)
      target[index * element] ^= static_cast<std::uint8_t>(1 + index % 2);
  }
  return target;
}

bool write_long_seeds(const std::string& folder) {
  bool good = true;
  for (unsigned number = 0; number < kDtypeCount; ++number) {
    const auto dtype = static_cast<Dtype>(number);
    const std::size_t size = element_size(dtype) * 20000;
    const auto base = fuzz::base_pattern(size);
    const auto target = half_moved(base, element_size(dtype));
    good =
        write_seed(folder + "/seed_" + std::to_string(number) + "_lanes", dtype, target, &base, size / 64 * 64 + 64) &&
        good;
  }
  for (const Format& format : kFormats) {
    for (const std::size_t size : {std::size_t{2048}, std::size_t{16384}}) {
      const auto base = fuzz::base_pattern(size);
      const std::string stem = folder + "/seed_" + std::to_string(static_cast<unsigned>(format.dtype)) + "_" +
                               std::to_string(size) + "_step";
      good = write_seed(stem, format.dtype, stepped(base, format), &base, 16384) && good;
    }
  }
  return good;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", arguments[0]);
    return 2;
  }
  bool good = write_long_seeds(arguments[1]);
  for (unsigned number = 0; number < kDtypeCount; ++number) {
    const auto dtype = static_cast<Dtype>(number);
    for (const std::size_t size : {std::size_t{64}, std::size_t{2048}, std::size_t{16384}}) {
      const auto base = fuzz::base_pattern(size);
      const std::string stem =
          std::string(arguments[1]) + "/seed_" + std::to_string(number) + "_" + std::to_string(size);
      good = write_seed(stem + "_same", dtype, base, &base, 4096) && good;
      good = write_seed(stem + "_alone", dtype, base, nullptr, 4096) && good;
      // A step that moves one element in `every` by one or two units, and a few far away.
      for (const std::size_t every : {std::size_t{2}, std::size_t{64}, std::size_t{300}}) {
        auto target = base;
        const std::size_t element = element_size(dtype);
        for (std::size_t at = 0; at + element <= size; at += every * element) {
          target[at] = static_cast<std::uint8_t>(target[at] + 1 + at % 3);
          if (at % 7 == 0) target[at + element - 1] ^= 0x80;
        }
        good = write_seed(stem + "_delta" + std::to_string(every), dtype, target, &base, 4096) && good;
      }
    }
  }
  return good ? 0 : 1;
}

// Writes the seeds of the frame decoder harness into the folder named on the command line: real frames of every mode
// and element type, so that the fuzzer starts behind the header checks. Made afresh, they follow the format.
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

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", arguments[0]);
    return 2;
  }
  bool good = true;
  for (unsigned number = 0; number < kDtypeCount; ++number) {
    const auto dtype = static_cast<Dtype>(number);
    for (const std::size_t size : {std::size_t{64}, std::size_t{2048}, std::size_t{16384}}) {
      const auto base = fuzz::base_pattern(size);
      const std::string stem =
          std::string(arguments[1]) + "/seed_" + std::to_string(number) + "_" + std::to_string(size);
      good = write_seed(stem + "_same", dtype, base, &base, 4096) && good;
      good = write_seed(stem + "_alone", dtype, base, nullptr, 4096) && good;
      // A step that moves one element in `every` by one or two units, and a few far away.
      for (const std::size_t every : {std::size_t{2}, std::size_t{64}}) {
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

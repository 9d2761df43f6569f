// Uses each part of the installed core once, as a C++ server would, and prints one "name value" line a fact; the test
// that builds this program compares them with what Python says.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "textnlp_fast/chunk.h"
#include "textnlp_fast/codec.h"
#include "textnlp_fast/cpu.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/dtype.h"
#include "textnlp_fast/hash.h"
#include "textnlp_fast/status.h"

namespace {

void use_cpu() {
  std::printf("isa %s\n", textnlp_fast::isa_name());
  std::printf("threads %u\n", textnlp_fast::default_threads());
  const char* names[8];
  const unsigned count = textnlp_fast::available_isas(names, 8);
  std::printf("isas");
  for (unsigned index = 0; index < count && index < 8; ++index) std::printf(" %s", names[index]);
  std::printf("\n");
}

void use_cuda() {
  // Answers without a driver, and in a build without nvcc.
  std::printf("cuda_devices %d\n", textnlp_fast::cuda_device_count());
}

void use_status() {
  const auto status = textnlp_fast::Status::failure(textnlp_fast::Code::corrupt, "torn frame", 42);
  std::printf("status %s %llu %s\n", status.ok() ? "ok" : "failed", static_cast<unsigned long long>(status.position),
              status.message);
  std::printf("bf16_bytes %zu\n", textnlp_fast::element_size(textnlp_fast::Dtype::bf16));
}

void use_hash() {
  const char text[] = "weights";
  std::printf("blake3 ");
  for (const std::uint8_t byte : textnlp_fast::blake3(text, std::strlen(text))) std::printf("%02x", byte);
  std::printf("\n");
}

// Zeros never meet the hash's condition, so each chunk is as long as a chunk may be.
void use_chunk() {
  const std::vector<std::uint8_t> zeros(300'000);
  std::vector<std::uint64_t> ends(textnlp_fast::max_chunks(zeros.size()));
  std::size_t count = 0;
  const auto status = textnlp_fast::chunk_boundaries(zeros.data(), zeros.size(), 2, ends.data(), ends.size(), &count);
  std::printf("chunks %s", status.ok() ? "ok" : status.message);
  for (std::size_t index = 0; index < count; ++index)
    std::printf(" %llu", static_cast<unsigned long long>(ends[index]));
  std::printf("\n");
}

// A bf16 tensor of ones, one of which moves by a step; the delta is decoded in place, over the base.
void use_codec() {
  std::vector<std::uint16_t> base(4096, 0x3F80);
  std::vector<std::uint16_t> target = base;
  target[100] += 1;
  const std::size_t size = base.size() * sizeof base[0];
  const auto bytes = [](std::vector<std::uint16_t>& tensor) { return reinterpret_cast<std::uint8_t*>(tensor.data()); };
  const textnlp_fast::EncodeOptions options;
  std::vector<std::uint8_t> payload(textnlp_fast::encode_bound(size, options.frame_size));
  std::size_t written = 0;
  auto status = textnlp_fast::encode(textnlp_fast::Dtype::bf16, bytes(target), bytes(base), size, options,
                                     payload.data(), payload.size(), &written);
  if (status.ok()) status = textnlp_fast::decode(payload.data(), written, bytes(base), bytes(base), size, 1);
  std::printf("codec %s %zu of %zu\n", status.ok() && base == target ? "same" : status.message, written, size);
}

}  // namespace

int main() {
  use_cpu();
  use_cuda();
  use_status();
  use_hash();
  use_chunk();
  use_codec();
  return 0;
}

// Uses each part of the installed core once, as a C++ server would, and prints one "name value" line a fact; the test
// that builds this program compares them with what Python says.
#include <cstdio>

#include "textnlp_fast/cpu.h"
#include "textnlp_fast/dtype.h"
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

void use_status() {
  const auto status = textnlp_fast::Status::failure(textnlp_fast::Code::corrupt, "torn frame", 42);
  std::printf("status %s %llu %s\n", status.ok() ? "ok" : "failed", static_cast<unsigned long long>(status.position),
              status.message);
  std::printf("bf16_bytes %zu\n", textnlp_fast::element_size(textnlp_fast::Dtype::bf16));
}

}  // namespace

int main() {
  use_cpu();
  use_status();
  return 0;
}

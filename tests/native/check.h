// The little that a native test needs: CHECK counts what fails and goes on, on_every_isa runs a body on each
// instruction set of this processor, finish() is the exit status.
#pragma once
#include <cstdio>

#include "textnlp_fast/cpu.h"

namespace textnlp_fast::testing {

inline unsigned checked = 0;
inline unsigned failed = 0;

inline bool check(bool held, const char* what, const char* file, int line) {
  ++checked;
  if (held) return true;
  ++failed;
  std::fprintf(stderr, "%s:%d: on %s: not so: %s\n", file, line, isa_name(), what);
  return false;
}

template <class Body>
void on_every_isa(const Body& body) {
  const char* names[8];
  const unsigned count = available_isas(names, 8);
  check(count >= 1 && count <= 8, "between 1 and 8 instruction sets", __FILE__, __LINE__);
  for (unsigned index = 0; index < count && index < 8; ++index) {
    check(force_isa(names[index]), names[index], __FILE__, __LINE__);
    body();
  }
  if (count > 0) (void)force_isa(names[0]);
}

// A test that checked nothing has failed.
inline int finish() {
  std::printf("%u checks, %u failed\n", checked, failed);
  return failed == 0 && checked > 0 ? 0 : 1;
}

}  // namespace textnlp_fast::testing

#define CHECK(...) ::textnlp_fast::testing::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

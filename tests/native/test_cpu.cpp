// The dispatch table: what is offered runs, what is not is refused, and the processor's best comes first.
#include <cstring>

#include "check.h"
#include "cpu/kernels.h"
#include "textnlp_fast/cpu.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

void every_offered_set_can_be_forced() {
  on_every_isa([] {
    const Kernels& table = kernels();
    CHECK(std::strcmp(isa_name(), table.name) == 0);
    CHECK(table.supported());
    CHECK(table.hash != nullptr && table.chunk != nullptr && table.codec != nullptr);
  });
}

void portable_is_last_and_always_there() {
  const char* names[8];
  const unsigned count = available_isas(names, 8);
  CHECK(count >= 1);
  CHECK(std::strcmp(names[count - 1], "portable") == 0);
}

void a_short_list_is_not_overrun() {
  const char* names[2] = {"untouched", "untouched"};
  const unsigned count = available_isas(names, 0);
  CHECK(count >= 1);
  CHECK(std::strcmp(names[0], "untouched") == 0);
  CHECK(available_isas(names, 1) == count);
  CHECK(std::strcmp(names[1], "untouched") == 0);
}

void an_unknown_set_is_refused_and_changes_nothing() {
  const char* before = isa_name();
  CHECK(!force_isa("mmx"));
  CHECK(!force_isa(""));
#if defined(__x86_64__)
  CHECK(!force_isa("neon"));
#else
  CHECK(!force_isa("avx2"));
#endif
  CHECK(std::strcmp(isa_name(), before) == 0);
}

}  // namespace

int main() {
  CHECK(default_threads() >= 1);
  portable_is_last_and_always_there();
  a_short_list_is_not_overrun();
  an_unknown_set_is_refused_and_changes_nothing();
  every_offered_set_can_be_forced();
  return finish();
}

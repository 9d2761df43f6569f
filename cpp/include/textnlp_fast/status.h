// The result of every core call: a code, where in the input it went wrong, and one plain sentence.
#pragma once
#include <cstdint>

namespace textnlp_fast {

enum class Code : std::uint8_t {
  ok = 0,
  invalid_argument,  // the call is wrong: fix it
  corrupt,           // the bytes are wrong: fetch them again
  truncated,         // the bytes end too early: read more, or fetch them again
  unsupported,       // the bytes are from a newer format: upgrade
  out_of_memory,
  device_error,  // the accelerator failed or is absent: use the CPU
  internal,      // a broken promise of ours: report it
};

struct [[nodiscard]] Status {
  Code code = Code::ok;
  // Byte offset in the input at which the fault was seen; meaningful for `corrupt`, `truncated` and `unsupported`.
  std::uint64_t position = 0;
  // Static storage, never freed.
  const char* message = "";

  [[nodiscard]] constexpr bool ok() const noexcept { return code == Code::ok; }
  static constexpr Status failure(Code code, const char* message, std::uint64_t position = 0) noexcept {
    return Status{code, position, message};
  }
};

}  // namespace textnlp_fast

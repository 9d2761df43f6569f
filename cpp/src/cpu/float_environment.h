// The processor's default arithmetic for as long as this lives: round to nearest even, subnormals kept. Programs that
// train networks switch subnormals off for a thread, which would change what a recipe gives.
#pragma once
#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#else
#include <cfenv>
#endif

namespace textnlp_fast {

class DefaultArithmetic {
 public:
#if defined(__x86_64__)
  DefaultArithmetic() noexcept : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~DefaultArithmetic() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
  DefaultArithmetic() noexcept {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
  }
  ~DefaultArithmetic() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }
#else
  DefaultArithmetic() noexcept {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultArithmetic() { std::fesetenv(&before_); }
#endif
  DefaultArithmetic(const DefaultArithmetic&) = delete;
  DefaultArithmetic& operator=(const DefaultArithmetic&) = delete;

 private:
#if defined(__x86_64__)
  unsigned before_;
#elif defined(__aarch64__)
  std::uint64_t before_ = 0;
#else
  std::fenv_t before_;
#endif
};

}  // namespace textnlp_fast

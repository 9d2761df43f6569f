// The low-rank kernels that differ by instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

namespace textnlp_fast {

// A stretch of one row of the result. Factors are fp32 already.
struct LowRankRow {
  const float* a;      // the factor A at the stretch's first column
  std::size_t stride;  // elements from one row of A to the next
  const float* b;      // the row of B
  std::size_t rank;
  float scale;
  unsigned rounding;  // MergeRounding
  const std::uint8_t* base;
  std::uint8_t* out;
  std::size_t count;  // elements
};

struct LowRankKernels {
  const char* name;
  void (*bf16_row)(const LowRankRow* row) noexcept;
  void (*f16_row)(const LowRankRow* row) noexcept;
  void (*f32_row)(const LowRankRow* row) noexcept;
};

extern const LowRankKernels low_rank_kernels_portable;
extern const LowRankKernels low_rank_kernels_avx2;
extern const LowRankKernels low_rank_kernels_avx512;
extern const LowRankKernels low_rank_kernels_neon;

}  // namespace textnlp_fast

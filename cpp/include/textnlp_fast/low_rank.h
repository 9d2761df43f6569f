// The low-rank recipe: base + scale * (B A), where A and B are the factors of a merged adapter. One fixed order of
// operations (docs/format.md, "Low rank"), so that every processor gives the same bits and deltas may be coded against
// them. Subnormals are kept and results round to nearest even, whatever the calling thread has set.
#pragma once
#include <cstddef>
#include <cstdint>

#include "textnlp_fast/dtype.h"
#include "textnlp_fast/status.h"

namespace textnlp_fast {

// Where a merge rounds to the tensor's type besides at its end: libraries differ.
enum class MergeRounding : std::uint8_t {
  once = 0,   // nowhere: round(W + s * (B A))
  delta = 1,  // round(W + round(s * (B A)))
  steps = 2,  // round(W + round(s * round(B A)))
};

inline constexpr std::size_t kMaxRank = 65536;
// Elements of a factor. As fp32 that is 1 GiB: who bounds memory applies a recipe tile by tile, some columns of A and
// some rows of B at a time, as delta/low_rank_tiles.py does.
inline constexpr std::size_t kMaxFactorElements = std::size_t{1} << 28;

struct LowRank {
  Dtype dtype;            // of the base and the result: bf16, f16 or f32
  std::size_t rows;       // of the result
  std::size_t columns;    // of the result
  std::size_t rank;       // 1 to kMaxRank
  Dtype a_dtype;          // f32, f16, bf16, i16 or i8; widened to fp32, which is exact
  Dtype b_dtype;          // as a_dtype
  const std::uint8_t* a;  // rank x columns, row by row
  std::size_t a_size;     // bytes
  const std::uint8_t* b;  // rows x rank, row by row
  std::size_t b_size;     // bytes
  float scale;            // finite
  MergeRounding rounding;
};

// What apply_low_rank() and its CUDA twin refuse; looks at no factor.
Status check_low_rank(const LowRank& recipe, std::size_t begin, std::size_t count) noexcept;

// Writes `count` elements of the result, from element `begin` on, to `out`. `base` holds these elements of the base;
// `out` may be `base`, else they must not overlap. Needs rank * (columns + the rows touched) * 4 bytes of memory and up
// to `threads` threads (0: all). Fails with invalid_argument and writes nothing if sizes or types do not fit.
Status apply_low_rank(const LowRank& recipe, const std::uint8_t* base, std::size_t begin, std::size_t count,
                      std::uint8_t* out, unsigned threads) noexcept;

}  // namespace textnlp_fast

#include "textnlp_fast/low_rank.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "cpu/float_environment.h"
#include "cpu/kernels.h"
#include "thread/parallel.h"

namespace textnlp_fast {
namespace {

// Multiply-adds that pay for handing a piece to a thread.
constexpr std::size_t kPieceWork = std::size_t{1} << 21;
// Columns of A that stay in the first-level cache while the rows of a piece pass, at the ranks of adapters.
constexpr std::size_t kPanelFloats = 6144;
constexpr std::size_t kMinPanelColumns = 128;

bool fits(std::size_t rows, std::size_t columns, Dtype dtype, std::size_t size_bytes) noexcept {
  std::size_t elements = 0;
  std::size_t bytes = 0;
  return !__builtin_mul_overflow(rows, columns, &elements) &&
         !__builtin_mul_overflow(elements, element_size(dtype), &bytes) && bytes == size_bytes;
}

bool is_factor(Dtype dtype) noexcept {
  return dtype == Dtype::f32 || dtype == Dtype::f16 || dtype == Dtype::bf16 || dtype == Dtype::i16 ||
         dtype == Dtype::i8;
}

float half_to_float(std::uint16_t half) noexcept {
  const unsigned exponent = half >> 10 & 31;
  const unsigned mantissa = half & 1023;
  const float magnitude =
      exponent == 31
          ? (mantissa == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN())
      : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                      : std::ldexp(static_cast<float>(mantissa + 1024), static_cast<int>(exponent) - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

template <class T>
T read(const std::uint8_t* from, std::size_t index) noexcept {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

// Elements [begin, begin + count) of a factor.
void widen(Dtype dtype, const std::uint8_t* data, std::size_t begin, std::size_t count, float* out) noexcept {
  data += begin * element_size(dtype);
  for (std::size_t index = 0; index < count; ++index) {
    switch (dtype) {
      case Dtype::f32: out[index] = read<float>(data, index); break;
      case Dtype::f16: out[index] = half_to_float(read<std::uint16_t>(data, index)); break;
      case Dtype::i16: out[index] = static_cast<float>(read<std::int16_t>(data, index)); break;
      case Dtype::i8: out[index] = static_cast<float>(read<std::int8_t>(data, index)); break;
      default: {
        const std::uint32_t bits = std::uint32_t{read<std::uint16_t>(data, index)} << 16;
        std::memcpy(&out[index], &bits, sizeof bits);
      }
    }
  }
}

// A, cut into panels of columns that lie one after the other, so that its rows are never a power of two apart.
std::size_t panel_columns(std::size_t rank) noexcept {
  return std::max(kMinPanelColumns, kPanelFloats / rank / 16 * 16);
}

void widen_panels(const LowRank& recipe, float* out) noexcept {
  const std::size_t panel = panel_columns(recipe.rank);
  for (std::size_t left = 0; left < recipe.columns; left += panel) {
    const std::size_t width = std::min(panel, recipe.columns - left);
    for (std::size_t k = 0; k < recipe.rank; ++k, out += width) {
      widen(recipe.a_dtype, recipe.a, k * recipe.columns + left, width, out);
    }
  }
}

// Elements [begin, end) of the matrix; `base` and `out` stand at `origin`, `b` at row `first_row`.
struct Job {
  const LowRank* recipe;
  void (*kernel)(const LowRankRow*) noexcept;
  const float* a;
  const float* b;
  std::size_t first_row;
  std::size_t origin;
  const std::uint8_t* base;
  std::uint8_t* out;

  void run(std::size_t begin, std::size_t end) const noexcept {
    const DefaultArithmetic arithmetic;
    const LowRank& r = *recipe;
    const std::size_t bytes = element_size(r.dtype);
    const std::size_t panel = panel_columns(r.rank);
    for (std::size_t left = 0; left < r.columns; left += panel) {
      const std::size_t width = std::min(panel, r.columns - left);
      const float* panel_a = a + left * r.rank;
      for (std::size_t row = begin / r.columns; row * r.columns < end; ++row) {
        const std::size_t start = row * r.columns + left;
        const std::size_t from = std::max(start, begin);
        const std::size_t to = std::min(start + width, end);
        if (from >= to) continue;
        const std::size_t at = (from - origin) * bytes;
        const LowRankRow stretch = {panel_a + (from - start),
                                    width,
                                    b + (row - first_row) * r.rank,
                                    r.rank,
                                    r.scale,
                                    static_cast<unsigned>(r.rounding),
                                    base + at,
                                    out + at,
                                    to - from};
        kernel(&stretch);
      }
    }
  }
};

}  // namespace

Status check_low_rank(const LowRank& recipe, std::size_t begin, std::size_t count) noexcept {
  const auto wrong = [](const char* message) { return Status::failure(Code::invalid_argument, message); };
  if (recipe.dtype != Dtype::bf16 && recipe.dtype != Dtype::f16 && recipe.dtype != Dtype::f32) {
    return wrong("a low-rank recipe makes BF16, F16 or F32 only");
  }
  if (!is_factor(recipe.a_dtype) || !is_factor(recipe.b_dtype)) {
    return wrong("factors of a low-rank recipe are F32, F16, BF16, I16 or I8");
  }
  if (recipe.rank == 0 || recipe.rank > kMaxRank) return wrong("the rank of a low-rank recipe is 1 to 65536");
  if (recipe.rows == 0 || recipe.columns == 0) return wrong("a low-rank recipe has at least one row and one column");
  if (!fits(recipe.rank, recipe.columns, recipe.a_dtype, recipe.a_size)) {
    return wrong("factor A does not have rank x columns elements");
  }
  if (!fits(recipe.rows, recipe.rank, recipe.b_dtype, recipe.b_size)) {
    return wrong("factor B does not have rows x rank elements");
  }
  if (std::max(recipe.rows, recipe.columns) > kMaxFactorElements / recipe.rank) {
    return wrong("a factor of a low-rank recipe has more than 2^28 elements");
  }
  if (!std::isfinite(recipe.scale)) return wrong("the scale of a low-rank recipe is not finite");
  if (static_cast<unsigned>(recipe.rounding) > 2) return wrong("unknown rounding of a low-rank recipe");
  std::size_t elements = 0;
  if (__builtin_mul_overflow(recipe.rows, recipe.columns, &elements) || begin > elements || count > elements - begin) {
    return wrong("the elements asked for lie outside the matrix");
  }
  return {};
}

Status apply_low_rank(const LowRank& recipe, const std::uint8_t* base, std::size_t begin, std::size_t count,
                      std::uint8_t* out, unsigned threads) noexcept {
  const Status status = check_low_rank(recipe, begin, count);
  if (!status.ok() || count == 0) return status;
  const std::size_t first_row = begin / recipe.columns;
  const std::size_t rows = (begin + count - 1) / recipe.columns - first_row + 1;
  const std::unique_ptr<float[]> a(new (std::nothrow) float[recipe.rank * recipe.columns]);
  const std::unique_ptr<float[]> b(new (std::nothrow) float[rows * recipe.rank]);
  if (a == nullptr || b == nullptr) return Status::failure(Code::out_of_memory, "no memory for the factors");
  widen_panels(recipe, a.get());
  widen(recipe.b_dtype, recipe.b, first_row * recipe.rank, rows * recipe.rank, b.get());
  const LowRankKernels& table = *kernels().low_rank;
  const auto kernel = recipe.dtype == Dtype::bf16  ? table.bf16_row
                      : recipe.dtype == Dtype::f16 ? table.f16_row
                                                   : table.f32_row;
  const Job job = {&recipe, kernel, a.get(), b.get(), first_row, begin, base, out};
  // Whole rows a piece, so that a panel of A serves several; but no fewer pieces than very wide rows need.
  const std::size_t wanted = std::max<std::size_t>(kPieceWork / recipe.rank, 4096);
  const std::size_t piece = wanted < recipe.columns ? wanted : wanted / recipe.columns * recipe.columns;
  parallel_for((count + piece - 1) / piece, threads, [&](std::size_t index) {
    const std::size_t from = begin + index * piece;
    job.run(from, from + std::min(piece, begin + count - from));
  });
  return {};
}

}  // namespace textnlp_fast

// Low-rank prediction on a device: base + scale * (B A), every sum in the order of the core's, so that the bits are the
// same. A block makes a tile of 64 by 64 elements; factors pass through shared memory, widened once.
#include <algorithm>

#include "cuda/frames.h"
#include "cuda/memory.h"
#include "cuda/simt.h"
#include "low_rank/low_rank_row.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

constexpr unsigned kTile = 64;
constexpr unsigned kDepth = 16;
constexpr unsigned kEach = 4;  // elements of a thread, along either side
constexpr unsigned kSide = kTile / kEach;

TEXTNLP_FAST_DEVICE float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

TEXTNLP_FAST_DEVICE float factor_at(Dtype dtype, const std::uint8_t* data, std::size_t index) {
  switch (dtype) {
    case Dtype::f32: return float_of(device::load<std::uint32_t>(data, index));
    case Dtype::f16: return from_f16(device::load<std::uint16_t>(data, index));
    case Dtype::bf16: return float_of(std::uint32_t{device::load<std::uint16_t>(data, index)} << 16);
    case Dtype::i16: return static_cast<float>(static_cast<std::int16_t>(device::load<std::uint16_t>(data, index)));
    default: return static_cast<float>(static_cast<std::int8_t>(data[index]));
  }
}

struct Tiles {
  float a[kDepth][kTile];
  float b[kTile][kDepth + 1];
};

struct Predict {
  static constexpr unsigned kThreads = kSide * kSide;
  LowRank recipe;  // its factors lie on the device
  const std::uint8_t* base;
  std::uint8_t* out;
  std::size_t begin;
  std::size_t end;
  std::size_t first_row;
  std::size_t row_tiles;
  std::size_t column_tiles;

  TEXTNLP_FAST_DEVICE void load_tiles(Tiles& tiles, std::size_t row, std::size_t column, std::size_t k) const {
    for (unsigned i = simt::thread(); i < kDepth * kTile; i += kThreads) {
      const std::size_t depth = k + i / kTile;
      const std::size_t at = column + i % kTile;
      const bool inside = depth < recipe.rank && at < recipe.columns;
      tiles.a[i / kTile][i % kTile] = inside ? factor_at(recipe.a_dtype, recipe.a, depth * recipe.columns + at) : 0;
    }
    for (unsigned i = simt::thread(); i < kDepth * kTile; i += kThreads) {
      const std::size_t depth = k + i % kDepth;
      const std::size_t at = row + i / kDepth;
      const bool inside = depth < recipe.rank && at < recipe.rows;
      tiles.b[i / kDepth][i % kDepth] = inside ? factor_at(recipe.b_dtype, recipe.b, at * recipe.rank + depth) : 0;
    }
  }

  template <class T>
  TEXTNLP_FAST_DEVICE void finish(float product, std::size_t element) const {
    const LowRankRow row{nullptr,
                         0,
                         nullptr,
                         0,
                         recipe.scale,
                         static_cast<unsigned>(recipe.rounding),
                         base + (element - begin) * T::kBytes,
                         out + (element - begin) * T::kBytes,
                         1};
    merge<Scalar, T>(row, product, 0);
  }

  TEXTNLP_FAST_DEVICE void tile(Tiles& tiles, std::size_t row, std::size_t column) const {
    float sums[kEach][kEach] = {};
    const unsigned across = simt::thread() % kSide;
    const unsigned down = simt::thread() / kSide;
    for (std::size_t k = 0; k < recipe.rank; k += kDepth) {
      load_tiles(tiles, row, column, k);
      simt::sync_block();
      // Not past the rank: adding 0 * x changes -0 and makes NaNs of infinities.
      const auto depth = static_cast<unsigned>(recipe.rank - k < kDepth ? recipe.rank - k : kDepth);
      for (unsigned d = 0; d < depth; ++d) {
        for (unsigned i = 0; i < kEach; ++i) {
          const float b = tiles.b[down + i * kSide][d];
          for (unsigned j = 0; j < kEach; ++j) sums[i][j] = fused(b, tiles.a[d][across + j * kSide], sums[i][j]);
        }
      }
      simt::sync_block();
    }
    for (unsigned i = 0; i < kEach; ++i) {
      for (unsigned j = 0; j < kEach; ++j) {
        const std::size_t y = row + down + i * kSide;
        const std::size_t x = column + across + j * kSide;
        const std::size_t element = y * recipe.columns + x;
        if (y >= recipe.rows || x >= recipe.columns || element < begin || element >= end) continue;
        if (recipe.dtype == Dtype::bf16) {
          finish<Bf16>(sums[i][j], element);
        } else if (recipe.dtype == Dtype::f16) {
          finish<F16>(sums[i][j], element);
        } else {
          finish<F32>(sums[i][j], element);
        }
      }
    }
  }

  TEXTNLP_FAST_DEVICE void operator()() const {
    Tiles& tiles = *reinterpret_cast<Tiles*>(simt::shared());
    for (std::size_t n = simt::block(); n < row_tiles * column_tiles; n += simt::blocks()) {
      tile(tiles, first_row + n / column_tiles * kTile, n % column_tiles * kTile);
    }
  }
};

}  // namespace

Status cuda_apply_low_rank(const LowRank& recipe, const std::uint8_t* base_dev, std::size_t begin, std::size_t count,
                           std::uint8_t* out_dev, void* stream) noexcept {
  const Status status = check_low_rank(recipe, begin, count);
  if (!status.ok() || count == 0) return status;
  const std::size_t first_row = begin / recipe.columns;
  const std::size_t rows = (begin + count - 1) / recipe.columns - first_row + 1;
  const std::size_t row_tiles = (rows + kTile - 1) / kTile;
  const std::size_t column_tiles = (recipe.columns + kTile - 1) / kTile;
  const Predict predict{recipe, base_dev, out_dev, begin, begin + count, first_row, row_tiles, column_tiles};
  constexpr std::size_t kMostBlocks = 1 << 20;
  return simt::launch(predict, std::min(row_tiles * column_tiles, kMostBlocks), sizeof(Tiles), stream);
}

Status cuda_apply_low_rank_now(const LowRank& recipe, const std::uint8_t* base_dev, std::size_t begin,
                               std::size_t count, std::uint8_t* out_dev, void* stream) noexcept {
  Status status = check_low_rank(recipe, begin, count);
  if (!status.ok() || count == 0) return status;
  const std::size_t a_bytes = (recipe.a_size + 15) / 16 * 16;
  simt::DeviceMemory factors(stream);
  status = factors.allocate(a_bytes + recipe.b_size);
  if (!status.ok()) return status;
  LowRank on_device = recipe;
  on_device.a = factors.data();
  on_device.b = factors.data() + a_bytes;
  status = simt::to_device(factors.data(), recipe.a, recipe.a_size, stream);
  if (status.ok()) status = simt::to_device(factors.data() + a_bytes, recipe.b, recipe.b_size, stream);
  if (status.ok()) status = cuda_apply_low_rank(on_device, base_dev, begin, count, out_dev, stream);
  // Also after a failure: what was queued reads the factors.
  const Status waited = simt::wait(stream);
  return status.ok() ? waited : status;
}

}  // namespace textnlp_fast

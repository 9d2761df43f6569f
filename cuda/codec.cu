#include <cuda_runtime_api.h>

#include "cuda/ordered.cuh"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

constexpr unsigned kThreads = 256;
constexpr std::size_t kVectorBytes = 16;

// What is computed from an element of each input. `left` is the target, or for `Apply` the base.
struct Xor {
  template <class Bits>
  __device__ static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(left ^ right);
  }
};
struct UlpDifference {
  template <class Bits>
  __device__ static Bits of(Bits left, Bits right) {
    return twin::ulp_difference(left, right);
  }
};
struct UlpApply {
  template <class Bits>
  __device__ static Bits of(Bits left, Bits right) {
    return twin::ulp_apply(left, right);
  }
};
struct Subtract {
  template <class Bits>
  __device__ static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(left - right);
  }
};
struct Add {
  template <class Bits>
  __device__ static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(left + right);
  }
};

template <class Operation, class Bits>
__device__ uint4 of_vector(uint4 left, uint4 right) {
  constexpr unsigned kElements = kVectorBytes / sizeof(Bits);
  union Vector {
    uint4 whole;
    Bits elements[kElements];
  };
  Vector a{left};
  Vector b{right};
  Vector out{};
#pragma unroll
  for (unsigned i = 0; i < kElements; ++i) out.elements[i] = Operation::template of<Bits>(a.elements[i], b.elements[i]);
  return out.whole;
}

// Elements [0, vectors * kVectorBytes / sizeof(Bits)) sixteen bytes a thread, the rest one by one. Inputs are not
// __restrict__: the output may be one of them, and each thread reads its elements before it writes them.
template <class Operation, class Bits>
__global__ void elementwise(const Bits* left, const Bits* right, Bits* out, std::size_t count, std::size_t vectors) {
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  const std::size_t first = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const auto* left_vectors = reinterpret_cast<const uint4*>(left);
  const auto* right_vectors = reinterpret_cast<const uint4*>(right);
  auto* out_vectors = reinterpret_cast<uint4*>(out);
  for (std::size_t i = first; i < vectors; i += step) {
    out_vectors[i] = of_vector<Operation, Bits>(left_vectors[i], right_vectors[i]);
  }
  constexpr std::size_t kElements = kVectorBytes / sizeof(Bits);
  for (std::size_t i = vectors * kElements + first; i < count; i += step) {
    out[i] = Operation::template of<Bits>(left[i], right[i]);
  }
}

bool aligned(const void* pointer, std::size_t bytes) noexcept {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

template <class Operation, class Bits>
Status launch(const void* left, const void* right, void* out, std::size_t count, void* stream) noexcept {
  if (count == 0) return {};
  if (left == nullptr || right == nullptr || out == nullptr) {
    return Status::failure(Code::invalid_argument, "a null device pointer");
  }
  if (!aligned(left, sizeof(Bits)) || !aligned(right, sizeof(Bits)) || !aligned(out, sizeof(Bits))) {
    return Status::failure(Code::invalid_argument, "a device pointer is not aligned to its element size");
  }
  const bool wide = aligned(left, kVectorBytes) && aligned(right, kVectorBytes) && aligned(out, kVectorBytes);
  const std::size_t vectors = wide ? count / (kVectorBytes / sizeof(Bits)) : 0;
  const std::size_t work = vectors != 0 ? vectors : count;
  // Enough blocks to fill any device several times over; each thread then strides.
  constexpr std::size_t kMaxBlocks = 1 << 15;
  const std::size_t blocks = (work + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
  elementwise<Operation, Bits><<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const Bits*>(left), static_cast<const Bits*>(right), static_cast<Bits*>(out), count, vectors);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return Status::failure(Code::device_error, cudaGetErrorString(error));
  return {};
}

template <class Operation>
Status launch_for_width(const void* left, const void* right, void* out, std::size_t count, std::size_t width,
                        void* stream) noexcept {
  switch (width) {
    case 1: return launch<Operation, std::uint8_t>(left, right, out, count, stream);
    case 2: return launch<Operation, std::uint16_t>(left, right, out, count, stream);
    case 4: return launch<Operation, std::uint32_t>(left, right, out, count, stream);
    case 8: return launch<Operation, std::uint64_t>(left, right, out, count, stream);
    default: return Status::failure(Code::invalid_argument, "not a dtype");
  }
}

}  // namespace

CudaInfo cuda_info() noexcept {
  CudaInfo info;
  info.compiled = true;
  info.runtime_version = CUDART_VERSION;
  if (cudaDriverGetVersion(&info.driver_version) != cudaSuccess) info.driver_version = 0;
  const cudaError_t error = cudaGetDeviceCount(&info.device_count);
  if (error != cudaSuccess) {
    // Read it off, so that a later launch does not report it.
    (void)cudaGetLastError();
    info.device_count = 0;
    info.reason = info.driver_version == 0 ? "no CUDA driver is installed" : cudaGetErrorString(error);
  } else if (info.device_count == 0) {
    info.reason = "the CUDA driver sees no device";
  }
  return info;
}

Status cuda_xor(const void* target_dev, const void* base_dev, void* out_dev, std::size_t size_bytes,
                void* stream) noexcept {
  return launch<Xor, std::uint8_t>(target_dev, base_dev, out_dev, size_bytes, stream);
}

Status cuda_ulp_difference(const void* target_dev, const void* base_dev, void* out_dev, std::size_t count, Dtype dtype,
                           void* stream) noexcept {
  const std::size_t width = element_size(dtype);
  if (exponent_bits(dtype) == 0) {
    return launch_for_width<Subtract>(target_dev, base_dev, out_dev, count, width, stream);
  }
  return launch_for_width<UlpDifference>(target_dev, base_dev, out_dev, count, width, stream);
}

Status cuda_ulp_apply(const void* base_dev, const void* difference_dev, void* out_dev, std::size_t count, Dtype dtype,
                      void* stream) noexcept {
  const std::size_t width = element_size(dtype);
  if (exponent_bits(dtype) == 0) {
    return launch_for_width<Add>(base_dev, difference_dev, out_dev, count, width, stream);
  }
  return launch_for_width<UlpApply>(base_dev, difference_dev, out_dev, count, width, stream);
}

int cuda_device_count() noexcept { return cuda_info().device_count; }

}  // namespace textnlp_fast

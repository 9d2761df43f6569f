// What the kernels use of a GPU: who am I, warp and block collectives, atomics, launches. nvcc maps it to the hardware.
// Any other compiler maps it to the emulator (emulator.h), where every lane is a fiber: the very kernels and launches
// run on a CPU then, which is how they are tested where there is no device.
//
// A kernel is a struct: its members are the arguments, operator() what each thread does, kThreads the size of its
// blocks. All threads of a warp must reach the same collectives; the emulator stops if they do not.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#define TEXTNLP_FAST_DEVICE __device__ __forceinline__
#define TEXTNLP_FAST_DEVICE_DATA __device__
// Of long functions: called, not inlined.
#define TEXTNLP_FAST_DEVICE_CALL __device__ __noinline__
#define TEXTNLP_FAST_UNROLL _Pragma("unroll")
#else
#include "cuda/emulator.h"
#define TEXTNLP_FAST_DEVICE inline
#define TEXTNLP_FAST_DEVICE_DATA
#define TEXTNLP_FAST_DEVICE_CALL inline
#define TEXTNLP_FAST_UNROLL
#endif

#include "textnlp_fast/status.h"

namespace textnlp_fast::simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

// What a grid holds in its first dimension.
constexpr std::size_t kMostBlocks = 0x7fffffff;
inline Status too_many_blocks() noexcept {
  return Status::failure(Code::invalid_argument, "more blocks than a launch can have: split the work");
}

#if defined(__CUDACC__)

TEXTNLP_FAST_DEVICE unsigned thread() { return threadIdx.x; }
TEXTNLP_FAST_DEVICE unsigned block() { return blockIdx.x; }
TEXTNLP_FAST_DEVICE unsigned block_threads() { return blockDim.x; }
TEXTNLP_FAST_DEVICE unsigned blocks() { return gridDim.x; }

TEXTNLP_FAST_DEVICE unsigned ballot(bool vote) { return __ballot_sync(kAll, vote); }
template <class T>
TEXTNLP_FAST_DEVICE T shuffle(T value, unsigned from_lane) {
  return __shfl_sync(kAll, value, static_cast<int>(from_lane));
}
TEXTNLP_FAST_DEVICE void sync_warp() { __syncwarp(kAll); }
TEXTNLP_FAST_DEVICE void sync_block() { __syncthreads(); }
// Bytes that a launch asked for, of the block; aligned to 16.
TEXTNLP_FAST_DEVICE unsigned char* shared() {
  extern __shared__ uint4 textnlp_fast_shared[];
  return reinterpret_cast<unsigned char*>(textnlp_fast_shared);
}
template <class T>
TEXTNLP_FAST_DEVICE T atomic_add(T* at, T value) {
  return atomicAdd(at, value);
}
template <class T>
TEXTNLP_FAST_DEVICE T atomic_min(T* at, T value) {
  return atomicMin(at, value);
}
template <class T>
TEXTNLP_FAST_DEVICE T atomic_max(T* at, T value) {
  return atomicMax(at, value);
}
template <class T>
TEXTNLP_FAST_DEVICE T atomic_or(T* at, T value) {
  return atomicOr(at, value);
}
TEXTNLP_FAST_DEVICE unsigned count_bits(std::uint32_t bits) { return static_cast<unsigned>(__popc(bits)); }
// The lowest bit that is set; `bits` is not 0.
TEXTNLP_FAST_DEVICE unsigned lowest_bit(std::uint32_t bits) {
  return static_cast<unsigned>(__ffs(static_cast<int>(bits))) - 1;
}

using Stream = cudaStream_t;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) run(const Kernel kernel) {
  kernel();
}

// An error that is not the context's end is read off, so that no later call of anybody reports it.
inline Status status_of(cudaError_t error) noexcept {
  if (error == cudaSuccess) return {};
  (void)cudaGetLastError();
  return Status::failure(Code::device_error, cudaGetErrorString(error));
}

// More shared memory than every kernel gets has to be asked for, of each device.
template <class Kernel>
Status allow_shared(std::size_t bytes) noexcept {
  constexpr std::size_t kWithoutAsking = 48 << 10;
  if (bytes <= kWithoutAsking) return {};
  return status_of(
      cudaFuncSetAttribute(run<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

// Queues `blocks` blocks of Kernel::kThreads threads, each with `shared_bytes` of shared memory. Nothing to do for no
// blocks. Through cudaLaunchKernel(), which answers for this launch: what others left in the thread's last error is
// theirs.
template <class Kernel>
Status launch(const Kernel& kernel, std::size_t blocks, std::size_t shared_bytes, void* stream) noexcept {
  if (blocks == 0) return {};
  if (blocks > kMostBlocks) return too_many_blocks();
  const Status allowed = allow_shared<Kernel>(shared_bytes);
  if (!allowed.ok()) return allowed;
  Kernel argument = kernel;
  void* arguments[] = {&argument};
  return status_of(cudaLaunchKernel(reinterpret_cast<const void*>(&run<Kernel>), dim3(static_cast<unsigned>(blocks)),
                                    dim3(Kernel::kThreads), arguments, shared_bytes, static_cast<Stream>(stream)));
}

inline Status fill(void* at_dev, int byte, std::size_t size, void* stream) noexcept {
  return status_of(cudaMemsetAsync(at_dev, byte, size, static_cast<Stream>(stream)));
}

// How many blocks of this kernel the current device runs at once.
template <class Kernel>
Status resident_blocks(std::size_t shared_bytes, std::size_t* blocks) noexcept {
  int device = 0;
  int processors = 0;
  int each = 0;
  Status status = status_of(cudaGetDevice(&device));
  if (status.ok()) status = status_of(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  if (status.ok()) status = allow_shared<Kernel>(shared_bytes);
  if (status.ok()) {
    status =
        status_of(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, run<Kernel>, Kernel::kThreads, shared_bytes));
  }
  *blocks = static_cast<std::size_t>(processors) * static_cast<std::size_t>(each);
  if (status.ok() && *blocks == 0) return Status::failure(Code::device_error, "the kernel does not fit the device");
  return status;
}

#else

inline Status failed_call() noexcept { return Status::failure(Code::device_error, "the emulated call was to fail"); }

inline unsigned thread() { return emulator::thread(); }
inline unsigned block() { return emulator::block(); }
inline unsigned block_threads() { return emulator::block_threads(); }
inline unsigned blocks() { return emulator::blocks(); }

inline unsigned ballot(bool vote) { return emulator::ballot(vote); }
template <class T>
inline T shuffle(T value, unsigned from_lane) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = emulator::shuffle(bits, from_lane);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
inline void sync_warp() { emulator::sync_warp(); }
inline void sync_block() { emulator::sync_block(); }
inline unsigned char* shared() { return emulator::shared(); }
// Fibers give way only at collectives: plain code is atomic.
template <class T>
inline T atomic_add(T* at, T value) {
  const T before = *at;
  *at = static_cast<T>(before + value);
  return before;
}
template <class T>
inline T atomic_min(T* at, T value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}
template <class T>
inline T atomic_max(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}
template <class T>
inline T atomic_or(T* at, T value) {
  const T before = *at;
  *at = before | value;
  return before;
}
inline unsigned count_bits(std::uint32_t bits) { return static_cast<unsigned>(__builtin_popcount(bits)); }
inline unsigned lowest_bit(std::uint32_t bits) { return static_cast<unsigned>(__builtin_ctz(bits)); }

template <class Kernel>
Status launch(const Kernel& kernel, std::size_t blocks, std::size_t shared_bytes, void* /*stream*/) noexcept {
  if (blocks > kMostBlocks) return too_many_blocks();
  if (blocks == 0) return {};
  if (emulator::call_fails()) return failed_call();
  emulator::launch(
      {blocks, Kernel::kThreads, shared_bytes}, [](const void* self) { (*static_cast<const Kernel*>(self))(); },
      &kernel);
  return {};
}

inline Status fill(void* at_dev, int byte, std::size_t size, void* /*stream*/) noexcept {
  if (emulator::call_fails()) return failed_call();
  if (size != 0) __builtin_memset(at_dev, byte, size);
  return {};
}

// Few, so that blocks have to loop.
template <class Kernel>
Status resident_blocks(std::size_t /*shared_bytes*/, std::size_t* blocks) noexcept {
  if (emulator::call_fails()) return failed_call();
  *blocks = 3;
  return {};
}

#endif

TEXTNLP_FAST_DEVICE unsigned lane() { return thread() % kWarp; }
TEXTNLP_FAST_DEVICE unsigned warp() { return thread() / kWarp; }
// Lanes below this one.
TEXTNLP_FAST_DEVICE std::uint32_t lanes_below() { return (1u << lane()) - 1; }

template <class T>
TEXTNLP_FAST_DEVICE T sum_of_lanes_below(T value, T* total) {
  T sum = value;
  TEXTNLP_FAST_UNROLL
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const T other = shuffle(sum, lane() >= step ? lane() - step : lane());
    sum += lane() >= step ? other : 0;
  }
  *total = shuffle(sum, kWarp - 1);
  return sum - value;
}
// The sum over the lanes below this one, and over all in `*total`.
TEXTNLP_FAST_DEVICE std::uint32_t sum_below(std::uint32_t value, std::uint32_t* total) {
  return sum_of_lanes_below(value, total);
}
TEXTNLP_FAST_DEVICE std::uint64_t sum_below(std::uint64_t value, std::uint64_t* total) {
  return sum_of_lanes_below(value, total);
}

}  // namespace textnlp_fast::simt

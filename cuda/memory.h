// Device memory that lives as long as a call, copies, and waiting: what host code uses of the CUDA runtime besides
// launches. For the emulator the device's memory is the host's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cuda/simt.h"

namespace textnlp_fast::simt {

#if defined(__CUDACC__)

inline Status allocate(void** at_dev, std::size_t size, void* stream) noexcept {
  const cudaError_t error = cudaMallocAsync(at_dev, size, static_cast<Stream>(stream));
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // read it off, so that a later launch does not report it
    return Status::failure(Code::out_of_memory, "the device has no memory left for this call");
  }
  return status_of(error);
}
inline void release(void* at_dev, void* stream) noexcept { (void)cudaFreeAsync(at_dev, static_cast<Stream>(stream)); }
inline Status to_device(void* to_dev, const void* from, std::size_t size, void* stream) noexcept {
  return status_of(cudaMemcpyAsync(to_dev, from, size, cudaMemcpyHostToDevice, static_cast<Stream>(stream)));
}
inline Status to_host(void* to, const void* from_dev, std::size_t size, void* stream) noexcept {
  return status_of(cudaMemcpyAsync(to, from_dev, size, cudaMemcpyDeviceToHost, static_cast<Stream>(stream)));
}
// Each side in host memory or on the device.
inline Status copy(void* to, const void* from, std::size_t size, void* stream) noexcept {
  return status_of(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, static_cast<Stream>(stream)));
}
inline Status wait(void* stream) noexcept { return status_of(cudaStreamSynchronize(static_cast<Stream>(stream))); }
inline Status allocate_locked(void** at, std::size_t size) noexcept {
  const cudaError_t error = cudaHostAlloc(at, size, cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return Status::failure(Code::out_of_memory, "the system locks no more memory for the device");
  }
  return status_of(error);
}
inline void release_locked(void* at) noexcept { (void)cudaFreeHost(at); }

#else

inline Status allocate(void** at_dev, std::size_t size, void* /*stream*/) noexcept {
  if (emulator::call_fails()) return failed_call();
  // More than any device has: sanitizers take such a call for a mistake.
  constexpr std::size_t kMost = std::size_t{1} << 39;
  if (size > kMost) return Status::failure(Code::out_of_memory, "no memory left for this call");
  *at_dev = std::aligned_alloc(256, (size + 255) / 256 * 256);
  if (*at_dev == nullptr) return Status::failure(Code::out_of_memory, "no memory left for this call");
  emulator::count_block(1);
  return {};
}
inline void release(void* at_dev, void* /*stream*/) noexcept {
  std::free(at_dev);
  emulator::count_block(-1);
}
inline Status copy(void* to, const void* from, std::size_t size, void* /*stream*/) noexcept {
  if (emulator::call_fails()) return failed_call();
  if (size != 0) std::memcpy(to, from, size);
  return {};
}
inline Status to_device(void* to_dev, const void* from, std::size_t size, void* stream) noexcept {
  return copy(to_dev, from, size, stream);
}
inline Status to_host(void* to, const void* from_dev, std::size_t size, void* stream) noexcept {
  return copy(to, from_dev, size, stream);
}
inline Status wait(void* /*stream*/) noexcept { return emulator::call_fails() ? failed_call() : Status{}; }
inline Status allocate_locked(void** at, std::size_t size) noexcept {
  if (emulator::call_fails()) return failed_call();
  constexpr std::size_t kMost = std::size_t{1} << 39;
  if (size > kMost) return Status::failure(Code::out_of_memory, "no memory left for this call");
  *at = std::aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  return *at != nullptr ? Status{} : Status::failure(Code::out_of_memory, "no memory left for this call");
}
inline void release_locked(void* at) noexcept { std::free(at); }

#endif

// Bytes of device memory, given back in the order of the stream.
class DeviceMemory {
 public:
  explicit DeviceMemory(void* stream) : stream_(stream) {}
  ~DeviceMemory() {
    if (at_ != nullptr) release(at_, stream_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  Status allocate(std::size_t size) noexcept { return simt::allocate(&at_, size == 0 ? 1 : size, stream_); }
  [[nodiscard]] std::uint8_t* data() const { return static_cast<std::uint8_t*>(at_); }

 private:
  void* at_ = nullptr;
  void* stream_;
};

}  // namespace textnlp_fast::simt

#include "cuda/memory.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

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

int cuda_device_count() noexcept { return cuda_info().device_count; }

int cuda_device_of(const void* at_dev) noexcept {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, at_dev) == cudaSuccess) return attributes.device;
  (void)cudaGetLastError();
  return 0;
}

Status cuda_use_device(int device, int* before) noexcept {
  cudaError_t error = cudaGetDevice(before);
  if (error == cudaSuccess && *before != device) error = cudaSetDevice(device);
  return simt::status_of(error);
}

Status cuda_wait(void* stream) noexcept { return simt::wait(stream); }

}  // namespace textnlp_fast

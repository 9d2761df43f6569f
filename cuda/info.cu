#include <cstring>

#include "cuda/memory.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

CudaInfo cuda_info() noexcept {
  CudaInfo info;
  info.compiled = true;
  info.runtime_version = CUDART_VERSION;
  if (!simt::status_of(cudaDriverGetVersion(&info.driver_version)).ok()) info.driver_version = 0;
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

Status cuda_device(int number, CudaDevice* device) noexcept {
  *device = {};
  cudaDeviceProp facts;
  const Status status = simt::status_of(cudaGetDeviceProperties(&facts, number));
  if (!status.ok()) return status;
  std::strncpy(device->name, facts.name, sizeof device->name - 1);
  device->major = facts.major;
  device->minor = facts.minor;
  device->processors = facts.multiProcessorCount;
  device->memory_bytes = facts.totalGlobalMem;
  return {};
}

int cuda_device_of(const void* at_dev) noexcept {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, at_dev) == cudaSuccess) {
    return attributes.type == cudaMemoryTypeUnregistered ? -1 : attributes.device;
  }
  (void)cudaGetLastError();
  return 0;
}

Status cuda_use_device(int device, int* before) noexcept {
  const CudaInfo info = cuda_info();
  if (info.device_count == 0) return Status::failure(Code::device_error, info.reason);
  const Status status = simt::status_of(cudaGetDevice(before));
  if (!status.ok() || *before == device) return status;
  return simt::status_of(cudaSetDevice(device));
}

Status cuda_wait(void* stream) noexcept { return simt::wait(stream); }

Status cuda_order(void* before, void* stream) noexcept {
  cudaEvent_t event = nullptr;
  Status status = simt::status_of(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  if (!status.ok()) return status;
  status = simt::status_of(cudaEventRecord(event, static_cast<simt::Stream>(before)));
  if (status.ok()) status = simt::status_of(cudaStreamWaitEvent(static_cast<simt::Stream>(stream), event, 0));
  const Status destroyed = simt::status_of(cudaEventDestroy(event));
  return status.ok() ? destroyed : status;
}

}  // namespace textnlp_fast

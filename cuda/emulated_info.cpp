// One device, which is this processor.
#include <cstring>

#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

CudaInfo cuda_info() noexcept {
  CudaInfo info;
  info.compiled = true;
  info.emulated = true;
  info.device_count = 1;
  info.reason = "";
  return info;
}

int cuda_device_count() noexcept { return 1; }

Status cuda_device(int number, CudaDevice* device) noexcept {
  if (number != 0) return Status::failure(Code::device_error, "there is one device, number 0");
  *device = {};
  std::strcpy(device->name, "emulated");
  return {};
}

int cuda_device_of(const void* /*at_dev*/) noexcept { return 0; }

Status cuda_use_device(int device, int* before) noexcept {
  *before = 0;
  return device == 0 ? Status{} : Status::failure(Code::device_error, "there is one device, number 0");
}

Status cuda_wait(void* /*stream*/) noexcept { return {}; }

Status cuda_order(void* /*before*/, void* /*stream*/) noexcept { return {}; }

}  // namespace textnlp_fast

// One device, which is this processor.
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

CudaInfo cuda_info() noexcept {
  CudaInfo info;
  info.compiled = true;
  info.device_count = 1;
  info.reason = "";
  return info;
}

int cuda_device_count() noexcept { return 1; }

}  // namespace textnlp_fast

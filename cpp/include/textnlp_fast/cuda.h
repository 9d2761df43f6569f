// The CUDA twins. Present in every build: without CUDA, or on a machine without a driver, the calls say so.
#pragma once
#include <cstddef>
#include <cstdint>

#include "textnlp_fast/dtype.h"
#include "textnlp_fast/status.h"

namespace textnlp_fast {

struct CudaInfo {
  bool compiled = false;    // this build has the twins
  int runtime_version = 0;  // as CUDART_VERSION: 13000 for 13.0; 0 if not compiled
  int driver_version = 0;   // newest runtime the driver serves; 0 without a driver
  int device_count = 0;
  // Why device_count is 0, in static storage; "" otherwise.
  const char* reason = "";
};

// What there is. Needs no driver and starts no context.
CudaInfo cuda_info() noexcept;
int cuda_device_count() noexcept;

// In all that follows `_dev` pointers are to memory of the current device, `stream` is a cudaStream_t (null: the
// default stream), and the work is queued, not waited for. An output may be the same buffer as an input, but not
// overlap it otherwise. Fails with device_error if there is no device or the launch is refused.

// out[i] = target[i] ^ base[i] for `size_bytes` bytes. Any alignment.
Status cuda_xor(const void* target_dev, const void* base_dev, void* out_dev, std::size_t size_bytes,
                void* stream) noexcept;

// out[i] = place of target[i] - place of base[i] in the order of the dtype's values, wrapped to the element's width
// (see cuda/ordered.cuh). Opaque data, booleans and integers: the plain wrapped difference. `count` elements, aligned
// to their size.
Status cuda_ulp_difference(const void* target_dev, const void* base_dev, void* out_dev, std::size_t count, Dtype dtype,
                           void* stream) noexcept;

// The inverse: out[i] = the bits `difference[i]` places above base[i].
Status cuda_ulp_apply(const void* base_dev, const void* difference_dev, void* out_dev, std::size_t count, Dtype dtype,
                      void* stream) noexcept;

}  // namespace textnlp_fast

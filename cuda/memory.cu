// Device memory that outlives a call, and copies, for those who have no framework at hand.
#include "cuda/memory.h"

#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

Status cuda_allocate(void** at_dev, std::size_t size, void* stream) noexcept {
  *at_dev = nullptr;
  return simt::allocate(at_dev, size == 0 ? 1 : size, stream);
}

void cuda_free(void* at_dev, void* stream) noexcept {
  if (at_dev != nullptr) simt::release(at_dev, stream);
}

Status cuda_copy(void* to, const void* from, std::size_t size, void* stream) noexcept {
  return size == 0 ? Status{} : simt::copy(to, from, size, stream);
}

}  // namespace textnlp_fast

#include "bindings.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "The C++ core of textnlp-fast. Private: use textnlp_fast.hashing, .chunking, .delta and .storage.";
  module.attr("__version__") = TEXTNLP_FAST_VERSION;
  textnlp_fast::bindings::bind_cpu(module);
  textnlp_fast::bindings::bind_hash(module);
  textnlp_fast::bindings::bind_chunk(module);
  textnlp_fast::bindings::bind_codec(module);
  textnlp_fast::bindings::bind_low_rank(module);
  textnlp_fast::bindings::bind_cuda(module);
  textnlp_fast::bindings::bind_cuda_memory(module);
  textnlp_fast::bindings::bind_cuda_place(module);
  textnlp_fast::bindings::bind_cuda_work(module);
  textnlp_fast::bindings::bind_cuda_chunk(module);
  textnlp_fast::bindings::bind_cuda_low_rank(module);
  textnlp_fast::bindings::bind_cuda_encode(module);
  textnlp_fast::bindings::bind_nvml(module);
}

#include "chunk/chunk_kernels.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_portable = {"portable"};

}  // namespace textnlp_fast

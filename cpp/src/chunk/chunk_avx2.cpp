#include "chunk/chunk_kernels.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_avx2 = {"avx2"};

}  // namespace textnlp_fast

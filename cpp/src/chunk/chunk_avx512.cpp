#include "chunk/chunk_kernels.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_avx512 = {"avx512"};

}  // namespace textnlp_fast

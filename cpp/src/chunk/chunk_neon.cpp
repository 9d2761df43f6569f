#include "chunk/chunk_kernels.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_neon = {"neon"};

}  // namespace textnlp_fast

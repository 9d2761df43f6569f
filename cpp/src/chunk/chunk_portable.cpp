#include "chunk/chunk_kernels.h"
#include "chunk/gear_lanes.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_portable = {"portable", kScalarLanes, false, walk_scalar_lanes};

}  // namespace textnlp_fast

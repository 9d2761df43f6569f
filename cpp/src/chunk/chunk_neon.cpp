// Four registers of TBL hold a quarter of one digit plane; with loads that wide cores issue, general registers win.
#include "chunk/chunk_kernels.h"
#include "chunk/gear_lanes.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_neon = {"neon", kScalarLanes, false, walk_scalar_lanes};

}  // namespace textnlp_fast

// No byte permute of AVX2 reaches 256 entries and its gathers are slower than plain loads: general registers it is.
#include "chunk/chunk_kernels.h"
#include "chunk/gear_lanes.h"

namespace textnlp_fast {

const ChunkKernels chunk_kernels_avx2 = {"avx2", kScalarLanes, false, walk_scalar_lanes};

}  // namespace textnlp_fast

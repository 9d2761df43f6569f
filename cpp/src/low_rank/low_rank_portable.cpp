// std::fma is exact without the instruction, only slower.
#include "low_rank/low_rank_row.h"

namespace textnlp_fast {

const LowRankKernels low_rank_kernels_portable = {"portable", low_rank_row<Scalar, Bf16>, low_rank_row<Scalar, F16>,
                                                  low_rank_row<Scalar, F32>};

}  // namespace textnlp_fast

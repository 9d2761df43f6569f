#include "hash/hash_kernels.h"

namespace textnlp_fast {

const HashKernels hash_kernels_avx2 = {"avx2"};

}  // namespace textnlp_fast

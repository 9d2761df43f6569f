#include "hash/hash_kernels.h"

namespace textnlp_fast {

const HashKernels hash_kernels_avx512 = {"avx512"};

}  // namespace textnlp_fast

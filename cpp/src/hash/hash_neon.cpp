#include "hash/hash_kernels.h"

namespace textnlp_fast {

const HashKernels hash_kernels_neon = {"neon"};

}  // namespace textnlp_fast

#include "hash/hash_kernels.h"

namespace textnlp_fast {

const HashKernels hash_kernels_portable = {"portable"};

}  // namespace textnlp_fast

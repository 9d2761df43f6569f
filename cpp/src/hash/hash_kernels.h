// The hash kernels that differ by instruction set.
#pragma once

namespace textnlp_fast {

struct HashKernels {
  const char* name;
};

extern const HashKernels hash_kernels_portable;
extern const HashKernels hash_kernels_avx2;
extern const HashKernels hash_kernels_avx512;
extern const HashKernels hash_kernels_neon;

}  // namespace textnlp_fast

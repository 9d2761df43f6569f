// Marks what CUDA kernels run too: plain arithmetic on what it is given, no allocation, no standard containers.
#pragma once

#if defined(__CUDACC__)
#define TEXTNLP_FAST_HD __host__ __device__
// Of long functions that kernels call in many places: one copy, for their registers' and the compiler's sake.
#define TEXTNLP_FAST_HD_CALL inline __host__ __device__ __noinline__
#else
#define TEXTNLP_FAST_HD
#define TEXTNLP_FAST_HD_CALL inline
#endif

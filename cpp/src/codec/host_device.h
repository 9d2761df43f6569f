// Marks what CUDA kernels run too: plain arithmetic on what it is given, no allocation, no standard containers.
#pragma once

#if defined(__CUDACC__)
#define TEXTNLP_FAST_HD __host__ __device__
#else
#define TEXTNLP_FAST_HD
#endif

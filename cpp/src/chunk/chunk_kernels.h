// The chunk kernels that differ by instruction set.
#pragma once

namespace textnlp_fast {

struct ChunkKernels {
  const char* name;
};

extern const ChunkKernels chunk_kernels_portable;
extern const ChunkKernels chunk_kernels_avx2;
extern const ChunkKernels chunk_kernels_avx512;
extern const ChunkKernels chunk_kernels_neon;

}  // namespace textnlp_fast

// The one table of function pointers. A concept adds its struct of kernels here and one constant an instruction set.
#pragma once
#include "chunk/chunk_kernels.h"
#include "codec/codec_kernels.h"
#include "hash/hash_kernels.h"
#include "low_rank/low_rank_kernels.h"

namespace textnlp_fast {

struct Kernels {
  const char* name;
  bool (*supported)() noexcept;
  const HashKernels* hash;
  const ChunkKernels* chunk;
  const CodecKernels* codec;
  const LowRankKernels* low_rank;
};

// The table in force.
const Kernels& kernels() noexcept;

}  // namespace textnlp_fast

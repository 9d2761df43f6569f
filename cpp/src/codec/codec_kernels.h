// The codec kernels that differ by instruction set.
#pragma once

namespace textnlp_fast {

struct CodecKernels {
  const char* name;
};

extern const CodecKernels codec_kernels_portable;
extern const CodecKernels codec_kernels_avx2;
extern const CodecKernels codec_kernels_avx512;
extern const CodecKernels codec_kernels_neon;

}  // namespace textnlp_fast

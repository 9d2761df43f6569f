#include "codec/codec_kernels.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_avx2 = {"avx2"};

}  // namespace textnlp_fast

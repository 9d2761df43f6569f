#include "codec/codec_kernels.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_avx512 = {"avx512"};

}  // namespace textnlp_fast

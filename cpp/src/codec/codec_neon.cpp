#include "codec/codec_kernels.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_neon = {"neon"};

}  // namespace textnlp_fast

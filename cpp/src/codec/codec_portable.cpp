#include "codec/codec_kernels.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_portable = {"portable"};

}  // namespace textnlp_fast

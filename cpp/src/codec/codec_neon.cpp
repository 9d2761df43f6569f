#include "codec/codec_kernels.h"

namespace textnlp_fast {

const CodecKernels& codec_kernels_neon = codec_kernels_portable;

}  // namespace textnlp_fast

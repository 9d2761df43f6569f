#include "codec/codec_kernels.h"
#include "codec/neon_delta.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_neon = {
    "neon",
    neon::delta_survey,
    neon::delta_histogram,
    portable::delta_encode,
    neon::delta_decode,
    portable::sparse_survey,
    portable::sparse_scan,
    portable::sparse_pick,
    portable::sparse_place,
    neon::split_planes,
    neon::merge_planes,
    portable::byte_histogram,
    portable::bytes_encode,
    neon::bytes_decode,
    neon::bytes_decode_merge2,
};

}  // namespace textnlp_fast

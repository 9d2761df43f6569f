#include "codec/codec_kernels.h"
#include "codec/neon_delta.h"
#include "codec/neon_sparse.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_neon = {
    "neon",
    portable::delta_count,
    portable::delta_histogram,
    portable::delta_encode,
    neon::delta_decode,
    neon::sparse_survey,
    neon::sparse_scan,
    portable::sparse_list,
    portable::sparse_pick,
    portable::sparse_place,
    portable::bf16_steps,
    portable::steps_count,
    portable::steps_tell,
    portable::steps_take,
    neon::split_planes,
    neon::merge_planes,
    portable::byte_histogram,
    portable::byte_presence,
    portable::bytes_encode,
    neon::bytes_decode,
    neon::bytes_decode_merge2,
};

}  // namespace textnlp_fast

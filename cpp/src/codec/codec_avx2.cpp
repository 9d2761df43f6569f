#include "codec/avx2_delta_encode.h"
#include "codec/avx2_sparse.h"
#include "codec/codec_kernels.h"

namespace textnlp_fast {

const CodecKernels codec_kernels_avx2 = {
    "avx2",
    avx2::delta_count,
    avx2::delta_histogram,
    avx2::delta_encode,
    avx2::delta_decode,
    avx2::sparse_survey,
    avx2::sparse_scan,
    portable::sparse_list,
    portable::sparse_pick,
    portable::sparse_place,
    portable::bf16_steps,
    portable::steps_count,
    portable::steps_tell,
    portable::steps_take,
    avx2::split_planes,
    avx2::merge_planes,
    avx2::byte_histogram,
    avx2::byte_presence,
    avx2::bytes_encode,
    avx2::bytes_decode,
    avx2::bytes_decode_merge2,
};

}  // namespace textnlp_fast

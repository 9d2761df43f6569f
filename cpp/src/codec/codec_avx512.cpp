#include "codec/avx512_byte_counts.h"
#include "codec/avx512_bytes.h"
#include "codec/avx512_count.h"
#include "codec/avx512_decode.h"
#include "codec/avx512_encode.h"
#include "codec/avx512_sparse.h"
#include "codec/avx512_steps.h"
#include "codec/avx512_survey.h"
#include "codec/codec_kernels.h"

namespace textnlp_fast {

namespace {

// Those that fetch entries of tables one way: avx512_fetch.h.
template <class Fetch>
constexpr CodecKernels kernels_that(const char* name) noexcept {
  return {
      name,
      avx512::delta_count,
      avx512::delta_histogram,
      avx512::delta_encode<Fetch>,
      avx512::delta_decode<Fetch>,
      avx512::sparse_survey,
      avx512::sparse_scan,
      avx512::sparse_list,
      avx512::sparse_pick,
      avx512::sparse_place,
      avx512::bf16_steps,
      avx512::steps_count,
      avx512::steps_tell,
      avx512::steps_take,
      avx512::split_planes,
      avx512::merge_planes,
      avx512::byte_histogram,
      avx512::byte_presence,
      avx512::bytes_encode<Fetch>,
      avx512::bytes_decode<Fetch>,
      avx512::bytes_decode_merge2<Fetch>,
  };
}

}  // namespace

constinit const CodecKernels codec_kernels_avx512 = kernels_that<avx512::OneByOne>("avx512");
constinit const CodecKernels codec_kernels_avx512_gather = kernels_that<avx512::Gathered>("avx512_gather");

}  // namespace textnlp_fast

// Stands in for the twins in a build without CUDA: same calls, one answer.
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

#ifdef TEXTNLP_FAST_CUDA_SWITCHED_OFF
constexpr const char* kReason = "built without CUDA: it was switched off (TEXTNLP_FAST_CUDA=OFF)";
#else
constexpr const char* kReason = "built without CUDA: no nvcc was found when this package was compiled";
#endif

Status absent() noexcept { return Status::failure(Code::device_error, kReason); }

}  // namespace

CudaInfo cuda_info() noexcept {
  CudaInfo info;
  info.reason = kReason;
  return info;
}

int cuda_device_count() noexcept { return 0; }

int cuda_device_of(const void* /*at_dev*/) noexcept { return 0; }

Status cuda_use_device(int /*device*/, int* /*before*/) noexcept { return absent(); }

Status cuda_wait(void* /*stream*/) noexcept { return absent(); }

Status cuda_xor(const void* /*target_dev*/, const void* /*base_dev*/, void* /*out_dev*/, std::size_t /*size_bytes*/,
                void* /*stream*/) noexcept {
  return absent();
}

Status cuda_ulp_difference(const void* /*target_dev*/, const void* /*base_dev*/, void* /*out_dev*/,
                           std::size_t /*count*/, Dtype /*dtype*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_ulp_apply(const void* /*base_dev*/, const void* /*difference_dev*/, void* /*out_dev*/,
                      std::size_t /*count*/, Dtype /*dtype*/, void* /*stream*/) noexcept {
  return absent();
}

std::size_t cuda_blake3_workspace(std::size_t /*count*/, std::uint64_t /*total_bytes*/) noexcept { return 0; }

Status cuda_blake3(const DeviceSpan* /*spans_dev*/, std::size_t /*count*/, std::uint64_t /*total_bytes*/,
                   void* /*workspace_dev*/, std::size_t /*workspace_size*/, std::uint8_t* /*digests_dev*/,
                   void* /*stream*/) noexcept {
  return absent();
}

Status cuda_blake3_now(const DeviceSpan* /*spans*/, std::size_t /*count*/, std::uint8_t* /*digests*/,
                       void* /*stream*/) noexcept {
  return absent();
}

std::size_t cuda_diff_workspace(std::size_t /*count*/) noexcept { return 0; }

Status cuda_diff(const DevicePair* /*pairs_dev*/, std::size_t /*count*/, void* /*workspace_dev*/,
                 std::size_t /*workspace_size*/, DeviceDiff* /*out_dev*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_diff_now(const DevicePair* /*pairs*/, std::size_t /*count*/, DeviceDiff* /*out*/,
                     void* /*stream*/) noexcept {
  return absent();
}

Status cuda_apply_low_rank(const LowRank& /*recipe*/, const std::uint8_t* /*base_dev*/, std::size_t /*begin*/,
                           std::size_t /*count*/, std::uint8_t* /*out_dev*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_decode_workspace(std::size_t /*frames*/, std::size_t /*largest*/, std::size_t* /*least*/,
                             std::size_t* /*best*/) noexcept {
  return absent();
}

Status cuda_decode(const DeviceFrame* /*frames_dev*/, std::size_t /*count*/, std::size_t /*largest*/,
                   void* /*workspace_dev*/, std::size_t /*workspace_size*/, std::uint32_t* /*first_bad_dev*/,
                   void* /*stream*/) noexcept {
  return absent();
}

Status cuda_decode_payloads(const DecodeJob* /*jobs*/, std::size_t count, void* /*stream*/,
                            std::size_t* failed) noexcept {
  *failed = count;
  return absent();
}

Status cuda_encode_workspace(std::size_t /*count*/, std::size_t /*frames*/, std::size_t /*largest*/,
                             std::size_t* /*least*/, std::size_t* /*best*/) noexcept {
  return absent();
}

Status cuda_encode(const EncodeTensor* /*tensors_dev*/, std::size_t /*count*/, std::size_t /*frames*/,
                   std::size_t /*frame_size*/, std::size_t /*largest*/, void* /*workspace_dev*/,
                   std::size_t /*workspace_size*/, unsigned long long* /*sizes_dev*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_encode_payloads(const EncodeJob* /*jobs*/, std::size_t count, std::size_t /*frame_size*/,
                            std::size_t* /*written*/, void* /*stream*/, std::size_t* failed) noexcept {
  *failed = count;
  return absent();
}

}  // namespace textnlp_fast

// Stands in for the twins in a build without CUDA: same calls, one answer.
#include "textnlp_fast/cuda.h"

#include "textnlp_fast/cuda_memory.h"

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

Status cuda_device(int /*number*/, CudaDevice* /*device*/) noexcept { return absent(); }

int cuda_device_of(const void* /*at_dev*/) noexcept { return 0; }

Status cuda_use_device(int /*device*/, int* /*before*/) noexcept { return absent(); }

Status cuda_wait(void* /*stream*/) noexcept { return absent(); }

Status cuda_copy(void* /*to*/, const void* /*from*/, std::size_t /*size*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_watch_open(void** watch) noexcept {
  *watch = nullptr;
  return absent();
}

Status cuda_watch_start(void* /*watch*/, void* /*stream*/) noexcept { return absent(); }

Status cuda_watch_stop(void* /*watch*/, void* /*stream*/, double* /*seconds*/) noexcept { return absent(); }

void cuda_watch_close(void* /*watch*/) noexcept {}

Status cuda_pool_peak(bool /*reset*/, std::size_t* /*bytes*/) noexcept { return absent(); }

Status cuda_order(void* /*before*/, void* /*stream*/) noexcept { return absent(); }

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

Status cuda_blake3_keyed(const std::uint8_t* /*key*/, const DeviceSpan* /*spans_dev*/, std::size_t /*count*/,
                         std::uint64_t /*total_bytes*/, void* /*workspace_dev*/, std::size_t /*workspace_size*/,
                         std::uint8_t* /*digests_dev*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_blake3_keyed_now(const std::uint8_t* /*key*/, const DeviceSpan* /*spans*/, std::size_t /*count*/,
                             std::uint8_t* /*digests*/, void* /*stream*/) noexcept {
  return absent();
}

std::size_t cuda_chunk_workspace(std::size_t /*count*/, std::uint64_t /*total_bytes*/) noexcept { return 0; }

Status cuda_chunk(const DeviceSpan* /*spans_dev*/, std::size_t /*count*/, std::uint64_t /*total_bytes*/,
                  void* /*workspace_dev*/, std::size_t /*workspace_size*/, std::uint64_t* /*ends_dev*/,
                  std::uint64_t* /*counts_dev*/, void* /*stream*/) noexcept {
  return absent();
}

Status cuda_chunk_now(const DeviceSpan* /*spans*/, std::size_t /*count*/, std::uint64_t* /*ends*/,
                      std::uint64_t* /*counts*/, void* /*stream*/) noexcept {
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

Status cuda_apply_low_rank_now(const LowRank& /*recipe*/, const std::uint8_t* /*base_dev*/, std::size_t /*begin*/,
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

Status cuda_host_allocate(std::size_t /*size*/, void** /*at*/) noexcept { return absent(); }
void cuda_host_release(void* /*at*/) noexcept {}
Status cuda_allocate(std::size_t /*size*/, void* /*stream*/, void** /*at_dev*/) noexcept { return absent(); }
void cuda_release(void* /*at_dev*/, void* /*stream*/) noexcept {}
Status cuda_to_device(void* /*to_dev*/, const void* /*from*/, std::size_t /*size*/, void* /*stream*/) noexcept {
  return absent();
}
Status cuda_to_host(void* /*to*/, const void* /*from_dev*/, std::size_t /*size*/, void* /*stream*/) noexcept {
  return absent();
}
Status cuda_stream_create(void** /*stream*/) noexcept { return absent(); }
void cuda_stream_destroy(void* /*stream*/) noexcept {}
Status cuda_event_create(void** /*event*/) noexcept { return absent(); }
void cuda_event_destroy(void* /*event*/) noexcept {}
Status cuda_event_record(void* /*event*/, void* /*stream*/) noexcept { return absent(); }
Status cuda_event_done(void* /*event*/, bool* /*done*/) noexcept { return absent(); }
Status cuda_event_wait(void* /*event*/) noexcept { return absent(); }

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

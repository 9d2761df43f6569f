// The CUDA twins. Present in every build: without CUDA, or on a machine without a driver, the calls say so.
#pragma once
#include <cstddef>
#include <cstdint>

#include "textnlp_fast/codec.h"
#include "textnlp_fast/dtype.h"
#include "textnlp_fast/low_rank.h"
#include "textnlp_fast/status.h"

namespace textnlp_fast {

struct CudaInfo {
  bool compiled = false;    // this build has the twins
  bool emulated = false;    // its device is this processor (cuda/emulator.h), for tests
  int runtime_version = 0;  // as CUDART_VERSION: 13000 for 13.0; 0 if not compiled
  int driver_version = 0;   // newest runtime the driver serves; 0 without a driver
  int device_count = 0;
  // Why device_count is 0, in static storage; "" otherwise.
  const char* reason = "";
};

// What there is. Needs no driver and starts no context.
CudaInfo cuda_info() noexcept;
int cuda_device_count() noexcept;

// What is known of device `number`, from 0 on. Starts no context.
struct CudaDevice {
  char name[256] = {};
  int major = 0;  // of its compute capability
  int minor = 0;
  int processors = 0;
  std::size_t memory_bytes = 0;
};
Status cuda_device(int number, CudaDevice* device) noexcept;

// The device that memory lies on; -1 if it is no memory of a device, 0 where that is not known.
int cuda_device_of(const void* at_dev) noexcept;

// Makes `device` the current one of this thread, and tells the one before.
Status cuda_use_device(int device, int* before) noexcept;

// Waits until all that was given to a cudaStream_t is done.
Status cuda_wait(void* stream) noexcept;

// Copies `size` bytes, each side in host memory or in that of the current device. Queued; host memory must stay until
// cuda_wait() has returned.
Status cuda_copy(void* to, const void* from, std::size_t size, void* stream) noexcept;

// What `stream` is given next begins when all is done that `before` was given; both are of the current device.
Status cuda_order(void* before, void* stream) noexcept;

// A stopwatch of the current device, by its own clock: for benches. Stopping waits for what was given to the stream.
Status cuda_watch_open(void** watch) noexcept;
Status cuda_watch_start(void* watch, void* stream) noexcept;
Status cuda_watch_stop(void* watch, void* stream, double* seconds) noexcept;
void cuda_watch_close(void* watch) noexcept;

// The most bytes that the current device's pool had handed out at once, since the start or the last reset; 0 where the
// device is emulated.
Status cuda_pool_peak(bool reset, std::size_t* bytes) noexcept;

// In all that follows `_dev` pointers are to memory of the current device, `stream` is a cudaStream_t (null: the
// default stream), and the work is queued, not waited for. An output may be the same buffer as an input, but not
// overlap it otherwise. Fails with device_error if there is no device or the launch is refused.

// out[i] = target[i] ^ base[i] for `size_bytes` bytes. Any alignment.
Status cuda_xor(const void* target_dev, const void* base_dev, void* out_dev, std::size_t size_bytes,
                void* stream) noexcept;

// out[i] = place of target[i] - place of base[i] in the order of the dtype's values, wrapped to the element's width
// (see codec/ordered.h). Opaque data, booleans and integers: the plain wrapped difference. `count` elements, aligned
// to their size.
Status cuda_ulp_difference(const void* target_dev, const void* base_dev, void* out_dev, std::size_t count, Dtype dtype,
                           void* stream) noexcept;

// The inverse: out[i] = the bits `difference[i]` places above base[i].
Status cuda_ulp_apply(const void* base_dev, const void* difference_dev, void* out_dev, std::size_t count, Dtype dtype,
                      void* stream) noexcept;

// The BLAKE3 digests (hash.h) of `count` spans of device memory, 32 bytes each, at `digests_dev`. Spans may lie
// anywhere and have from 0 to 2^48 - 1 bytes, `total_bytes` in all. `spans_dev`, the digests and the workspace, aligned
// to 16 bytes, lie in device memory.
struct DeviceSpan {
  const std::uint8_t* data_dev;
  std::uint64_t size;
};
std::size_t cuda_blake3_workspace(std::size_t count, std::uint64_t total_bytes) noexcept;
Status cuda_blake3(const DeviceSpan* spans_dev, std::size_t count, std::uint64_t total_bytes, void* workspace_dev,
                   std::size_t workspace_size, std::uint8_t* digests_dev, void* stream) noexcept;
// The same with the list and the digests in host memory, a workspace from the stream's pool, and a wait at the end.
Status cuda_blake3_now(const DeviceSpan* spans, std::size_t count, std::uint8_t* digests, void* stream) noexcept;

// The keyed hashes: `key` is 32 bytes of host memory.
Status cuda_blake3_keyed(const std::uint8_t* key, const DeviceSpan* spans_dev, std::size_t count,
                         std::uint64_t total_bytes, void* workspace_dev, std::size_t workspace_size,
                         std::uint8_t* digests_dev, void* stream) noexcept;
Status cuda_blake3_keyed_now(const std::uint8_t* key, const DeviceSpan* spans, std::size_t count, std::uint8_t* digests,
                             void* stream) noexcept;

// Two tensors of one dtype and size, and how they differ: as diff() has it, the sum as sum_high * 2^64 + sum_low.
struct DevicePair {
  const std::uint8_t* a_dev;
  const std::uint8_t* b_dev;
  std::uint64_t size;  // bytes; a multiple of the element size, below 2^48
  Dtype dtype;
};
struct DeviceDiff {
  unsigned long long changed;
  unsigned long long max_ulp;
  unsigned long long sum_low;
  unsigned long long sum_high;
};

// Compares `count` pairs; `pairs_dev` and `out_dev` lie in device memory, and so does the workspace, aligned to 16
// bytes.
std::size_t cuda_diff_workspace(std::size_t count) noexcept;
Status cuda_diff(const DevicePair* pairs_dev, std::size_t count, void* workspace_dev, std::size_t workspace_size,
                 DeviceDiff* out_dev, void* stream) noexcept;
// The same with both lists in host memory, a workspace from the stream's pool, and a wait at the end.
Status cuda_diff_now(const DevicePair* pairs, std::size_t count, DeviceDiff* out, void* stream) noexcept;

// chunk_boundaries() (chunk.h) of `count` spans of device memory, at any alignment, `total_bytes` in all: counts_dev[n]
// receives how many chunks span n has, and their ends stand at `ends_dev`, those of a span behind the places of the
// spans before it. A span has (size + kMinChunkBytes - 1) / kMinChunkBytes places. The lists, the results and the
// workspace, aligned to 16 bytes, lie in device memory; the workspace takes half a percent of the bytes.
std::size_t cuda_chunk_workspace(std::size_t count, std::uint64_t total_bytes) noexcept;
Status cuda_chunk(const DeviceSpan* spans_dev, std::size_t count, std::uint64_t total_bytes, void* workspace_dev,
                  std::size_t workspace_size, std::uint64_t* ends_dev, std::uint64_t* counts_dev,
                  void* stream) noexcept;
// The same with the list and the results in host memory, a workspace from the stream's pool, and a wait at the end.
Status cuda_chunk_now(const DeviceSpan* spans, std::size_t count, std::uint64_t* ends, std::uint64_t* counts,
                      void* stream) noexcept;

// apply_low_rank() (low_rank.h) where the factors, the base and the result lie in device memory, at any alignment;
// `out_dev` may be `base_dev`. The same bits.
Status cuda_apply_low_rank(const LowRank& recipe, const std::uint8_t* base_dev, std::size_t begin, std::size_t count,
                           std::uint8_t* out_dev, void* stream) noexcept;
// The same with the factors in host memory, device memory for them from the stream's pool, and a wait at the end.
Status cuda_apply_low_rank_now(const LowRank& recipe, const std::uint8_t* base_dev, std::size_t begin,
                               std::size_t count, std::uint8_t* out_dev, void* stream) noexcept;

// A frame to decode: what its header says and where its parts lie. `body_dev` has `body_size` bytes, `base_dev` (null
// if there is none) and `out_dev` have `decoded_size`; they may lie anywhere. `out_dev` may be `base_dev`, but not
// overlap it otherwise.
struct DeviceFrame {
  const std::uint8_t* body_dev;
  const std::uint8_t* base_dev;
  std::uint8_t* out_dev;
  std::uint32_t body_size;
  std::uint32_t decoded_size;
  FrameMode mode;
  Dtype dtype;
};

// Lists the frames of a payload of which there are copies on the host and on the device, which together make exactly
// `size` bytes. Needs no device. Fails as decode() does, or with invalid_argument if `capacity` frames are too few.
Status list_frames(const std::uint8_t* payload, std::size_t payload_size, const std::uint8_t* payload_dev,
                   const std::uint8_t* base_dev, std::uint8_t* out_dev, std::size_t size, DeviceFrame* frames,
                   std::size_t capacity, std::size_t* count) noexcept;

// Bytes of device memory that cuda_decode() works in: the least it takes, and with which it is fastest.
// `largest` is the most elements that a frame has.
Status cuda_decode_workspace(std::size_t frames, std::size_t largest, std::size_t* least, std::size_t* best) noexcept;

// Decodes `count` frames, of any number of tensors, in one go. `frames_dev` lies in device memory; `largest` as above.
// `workspace_dev` is aligned to 16 bytes. `*first_bad_dev` receives the number of the first frame that is not valid, or
// kNoFrame; what the others decode to is right all the same.
inline constexpr std::uint32_t kNoFrame = 0xffffffffu;
Status cuda_decode(const DeviceFrame* frames_dev, std::size_t count, std::size_t largest, void* workspace_dev,
                   std::size_t workspace_size, std::uint32_t* first_bad_dev, void* stream) noexcept;

// A payload in host memory, and the tensor on the device that it decodes to.
struct DecodeJob {
  const std::uint8_t* payload;
  std::size_t payload_size;
  const std::uint8_t* base_dev;  // null if there is none
  std::uint8_t* out_dev;         // may be base_dev
  std::size_t size;              // bytes of the tensor
};

// All of the above for the payloads of many tensors: copies them to the device, decodes them there, and waits for the
// stream. Takes as much device memory as the payloads have bytes, and a workspace, from the stream's pool. On failure
// `*failed` is the number of the first job that is at fault, the position is that in its payload, and the outputs hold
// nothing of use; it is `count` where no job is.
Status cuda_decode_payloads(const DecodeJob* jobs, std::size_t count, void* stream, std::size_t* failed) noexcept;

// A tensor to encode: what encode() (codec.h) takes, on the device. All parts may lie anywhere; `out_dev` overlaps
// neither of the others. `size` is a multiple of the element size, below 2^48.
struct EncodeTensor {
  const std::uint8_t* target_dev;
  const std::uint8_t* base_dev;  // null if there is none
  std::uint8_t* out_dev;
  std::uint64_t size;      // bytes
  std::uint64_t capacity;  // bytes at `out_dev`; encode_bound() suffices always
  Dtype dtype;
};

// Bytes of device memory that cuda_encode() works in: the least it takes, and with which it is fastest. `frames` are
// those of all `count` tensors, ceil(size / frame size) each; `largest` is the most bytes that a frame has.
Status cuda_encode_workspace(std::size_t count, std::size_t frames, std::size_t largest, std::size_t* least,
                             std::size_t* best) noexcept;

// Encodes `count` tensors in one go, each to the bytes that encode() makes. `tensors_dev` lies in device memory;
// `frames` and `largest` as above, `frame_size` as in EncodeOptions. `workspace_dev` is aligned to 64 bytes.
// `sizes_dev[n]` receives the bytes of the n-th payload; where these are more than its capacity, frames that do not fit
// were left out.
Status cuda_encode(const EncodeTensor* tensors_dev, std::size_t count, std::size_t frames, std::size_t frame_size,
                   std::size_t largest, void* workspace_dev, std::size_t workspace_size, unsigned long long* sizes_dev,
                   void* stream) noexcept;

// A tensor on the device, and the place of its payload, there or in host memory.
struct EncodeJob {
  const std::uint8_t* target_dev;
  const std::uint8_t* base_dev;  // null if there is none
  std::size_t size;              // bytes of the tensor
  Dtype dtype;
  std::uint8_t* out;
  std::size_t capacity;  // at least encode_bound()
  bool out_on_device;
};

// All of the above for a list of tensors in host memory, with a wait at the end; `written[n]` receives the bytes of the
// n-th payload. Takes a workspace from the stream's pool, as large as there is room for up to the best, and at most
// 512 MiB for payloads on their way to the host. On failure `*failed` is the number of the first job that is at fault,
// or `count` where none is.
Status cuda_encode_payloads(const EncodeJob* jobs, std::size_t count, std::size_t frame_size, std::size_t* written,
                            void* stream, std::size_t* failed) noexcept;

}  // namespace textnlp_fast

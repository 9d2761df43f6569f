// Memory, copies, streams and events for callers outside: thin over the runtime, and over nothing on the emulator,
// whose one stream has done what it was given when the call returns.
#include "cuda/memory.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/cuda_memory.h"

namespace textnlp_fast {

Status cuda_host_allocate(std::size_t size, void** at) noexcept { return simt::allocate_locked(at, size); }
void cuda_host_release(void* at) noexcept { simt::release_locked(at); }

Status cuda_allocate(std::size_t size, void* stream, void** at_dev) noexcept {
  return simt::allocate(at_dev, size == 0 ? 1 : size, stream);
}
void cuda_release(void* at_dev, void* stream) noexcept { simt::release(at_dev, stream); }

Status cuda_to_device(void* to_dev, const void* from, std::size_t size, void* stream) noexcept {
  return size == 0 ? Status{} : simt::to_device(to_dev, from, size, stream);
}
Status cuda_to_host(void* to, const void* from_dev, std::size_t size, void* stream) noexcept {
  return size == 0 ? Status{} : simt::to_host(to, from_dev, size, stream);
}

Status cuda_copy(void* to, const void* from, std::size_t size, void* stream) noexcept {
  return size == 0 ? Status{} : simt::copy(to, from, size, stream);
}

#if defined(__CUDACC__)

Status cuda_stream_create(void** stream) noexcept {
  return simt::status_of(cudaStreamCreateWithFlags(reinterpret_cast<simt::Stream*>(stream), cudaStreamNonBlocking));
}
void cuda_stream_destroy(void* stream) noexcept { (void)cudaStreamDestroy(static_cast<simt::Stream>(stream)); }

Status cuda_event_create(void** event) noexcept {
  return simt::status_of(cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t*>(event), cudaEventDisableTiming));
}
void cuda_event_destroy(void* event) noexcept { (void)cudaEventDestroy(static_cast<cudaEvent_t>(event)); }
Status cuda_event_record(void* event, void* stream) noexcept {
  return simt::status_of(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<simt::Stream>(stream)));
}
Status cuda_event_done(void* event, bool* done) noexcept {
  const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
  *done = error == cudaSuccess;
  if (error != cudaErrorNotReady) return simt::status_of(error);
  (void)cudaGetLastError();  // not an error, but kept as one
  return {};
}
Status cuda_event_wait(void* event) noexcept {
  return simt::status_of(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}

#else

Status cuda_stream_create(void** stream) noexcept {
  *stream = nullptr;
  return {};
}
void cuda_stream_destroy(void* /*stream*/) noexcept {}

Status cuda_event_create(void** event) noexcept {
  *event = nullptr;
  return {};
}
void cuda_event_destroy(void* /*event*/) noexcept {}
Status cuda_event_record(void* /*event*/, void* /*stream*/) noexcept { return {}; }
Status cuda_event_done(void* /*event*/, bool* done) noexcept {
  *done = true;
  return {};
}
Status cuda_event_wait(void* /*event*/) noexcept { return {}; }

#endif

}  // namespace textnlp_fast

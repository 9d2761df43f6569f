// Time by a device's clock, and how much memory its pool has handed out.
#include <chrono>
#include <new>

#include "cuda/memory.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {

#if defined(__CUDACC__)

namespace {

struct Events {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
};

Status current_pool(cudaMemPool_t* pool) noexcept {
  int device = 0;
  const Status status = simt::status_of(cudaGetDevice(&device));
  return status.ok() ? simt::status_of(cudaDeviceGetMemPool(pool, device)) : status;
}

}  // namespace

Status cuda_watch_open(void** watch) noexcept {
  auto* const events = new (std::nothrow) Events;
  *watch = events;
  if (events == nullptr) return Status::failure(Code::out_of_memory, "no memory for a stopwatch");
  Status status = simt::status_of(cudaEventCreate(&events->begin));
  if (status.ok()) status = simt::status_of(cudaEventCreate(&events->end));
  if (status.ok()) return status;
  cuda_watch_close(events);
  *watch = nullptr;
  return status;
}

Status cuda_watch_start(void* watch, void* stream) noexcept {
  return simt::status_of(cudaEventRecord(static_cast<Events*>(watch)->begin, static_cast<simt::Stream>(stream)));
}

Status cuda_watch_stop(void* watch, void* stream, double* seconds) noexcept {
  const Events& events = *static_cast<Events*>(watch);
  float milliseconds = 0;
  Status status = simt::status_of(cudaEventRecord(events.end, static_cast<simt::Stream>(stream)));
  if (status.ok()) status = simt::status_of(cudaEventSynchronize(events.end));
  if (status.ok()) status = simt::status_of(cudaEventElapsedTime(&milliseconds, events.begin, events.end));
  *seconds = static_cast<double>(milliseconds) * 1e-3;
  return status;
}

void cuda_watch_close(void* watch) noexcept {
  auto* const events = static_cast<Events*>(watch);
  if (events == nullptr) return;
  if (events->begin != nullptr) (void)cudaEventDestroy(events->begin);
  if (events->end != nullptr) (void)cudaEventDestroy(events->end);
  delete events;
}

Status cuda_pool_peak(bool reset, std::size_t* bytes) noexcept {
  *bytes = 0;
  cudaMemPool_t pool = nullptr;
  std::uint64_t peak = 0;
  Status status = current_pool(&pool);
  if (status.ok()) status = simt::status_of(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &peak));
  *bytes = static_cast<std::size_t>(peak);
  std::uint64_t zero = 0;
  if (status.ok() && reset) status = simt::status_of(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &zero));
  return status;
}

#else

Status cuda_watch_open(void** watch) noexcept {
  *watch = new (std::nothrow) std::chrono::steady_clock::time_point;
  return *watch != nullptr ? Status{} : Status::failure(Code::out_of_memory, "no memory for a stopwatch");
}

Status cuda_watch_start(void* watch, void* /*stream*/) noexcept {
  *static_cast<std::chrono::steady_clock::time_point*>(watch) = std::chrono::steady_clock::now();
  return {};
}

Status cuda_watch_stop(void* watch, void* /*stream*/, double* seconds) noexcept {
  const auto passed = std::chrono::steady_clock::now() - *static_cast<std::chrono::steady_clock::time_point*>(watch);
  *seconds = std::chrono::duration<double>(passed).count();
  return {};
}

void cuda_watch_close(void* watch) noexcept { delete static_cast<std::chrono::steady_clock::time_point*>(watch); }

Status cuda_pool_peak(bool /*reset*/, std::size_t* bytes) noexcept {
  *bytes = 0;
  return {};
}

#endif

}  // namespace textnlp_fast

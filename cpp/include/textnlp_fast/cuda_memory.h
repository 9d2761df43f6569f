// Memory of a device and what moves bytes there and back: for callers that have no framework which does it. Present in
// every build, like cuda.h; for the emulated device it is host memory, and copies are done when they return.
#pragma once
#include <cstddef>

#include "textnlp_fast/status.h"

namespace textnlp_fast {

// Host memory that a device copies from and to by itself. Page-aligned; costs a millisecond or so a MiB to get, so keep
// it. Fails with out_of_memory where the system locks no more pages.
Status cuda_host_allocate(std::size_t size, void** at) noexcept;
void cuda_host_release(void* at) noexcept;

// Memory of the current device, from the pool of a stream: it may be used in the order of that stream at once, and on
// others after a wait.
Status cuda_allocate(std::size_t size, void* stream, void** at_dev) noexcept;
// Gives it back in the order of the stream.
void cuda_release(void* at_dev, void* stream) noexcept;

// Queues a copy. From and to page-locked memory nothing waits; with other memory the call may return late.
Status cuda_to_device(void* to_dev, const void* from, std::size_t size, void* stream) noexcept;
Status cuda_to_host(void* to, const void* from_dev, std::size_t size, void* stream) noexcept;

// A stream of the current device that no other waits for.
Status cuda_stream_create(void** stream) noexcept;
void cuda_stream_destroy(void* stream) noexcept;

// A mark in a stream: has all that was queued before it been done? An event that was never recorded is done.
Status cuda_event_create(void** event) noexcept;
void cuda_event_destroy(void* event) noexcept;
Status cuda_event_record(void* event, void* stream) noexcept;
Status cuda_event_done(void* event, bool* done) noexcept;
Status cuda_event_wait(void* event) noexcept;

}  // namespace textnlp_fast

// Memory, copies, streams and events as callers without a framework use them.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "check.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/cuda_memory.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

void there_and_back() {
  void* stream = nullptr;
  void* event = nullptr;
  CHECK(cuda_stream_create(&stream).ok());
  CHECK(cuda_event_create(&event).ok());
  bool done = false;
  CHECK(cuda_event_done(event, &done).ok());
  CHECK(done);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, std::size_t{100003}}) {
    void* locked = nullptr;
    void* on_device = nullptr;
    CHECK(cuda_host_allocate(size + 1, &locked).ok());
    CHECK(reinterpret_cast<std::uintptr_t>(locked) % 4096 == 0);
    CHECK(cuda_allocate(size, stream, &on_device).ok());
    std::vector<std::uint8_t> data(size);
    for (std::size_t at = 0; at < size; ++at) data[at] = static_cast<std::uint8_t>(at * 7 + 3);
    if (size != 0) std::memcpy(locked, data.data(), size);
    CHECK(cuda_to_device(on_device, locked, size, stream).ok());
    CHECK(cuda_event_record(event, stream).ok());
    CHECK(cuda_event_wait(event).ok());
    CHECK(cuda_event_done(event, &done).ok());
    CHECK(done);
    std::vector<std::uint8_t> back(size);
    CHECK(cuda_to_host(back.data(), on_device, size, stream).ok());
    CHECK(cuda_wait(stream).ok());
    CHECK(back == data);
    cuda_release(on_device, stream);
    cuda_host_release(locked);
  }
  cuda_event_destroy(event);
  cuda_stream_destroy(stream);
}

void more_than_there_is() {
  void* at = nullptr;
  CHECK(cuda_allocate(std::size_t{1} << 60, nullptr, &at).code == Code::out_of_memory);
  CHECK(cuda_host_allocate(std::size_t{1} << 60, &at).code == Code::out_of_memory);
}

}  // namespace

int main() {
  there_and_back();
  more_than_there_is();
  return finish();
}

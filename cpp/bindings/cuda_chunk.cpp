// Chunks of arrays on a device, and digests of them: lists and results in host memory.
#include <pybind11/numpy.h>

#include <cstring>
#include <deque>
#include <optional>
#include <vector>

#include "bindings.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast::bindings {
namespace {

std::size_t places_of(std::uint64_t size) {
  return static_cast<std::size_t>((size + kMinChunkBytes - 1) / kMinChunkBytes);
}

// The ends of the chunks of each of many arrays on one device.
py::list boundaries_of(const py::list& arrays, std::uintptr_t stream) {
  std::deque<DeviceBuffer> buffers;
  std::vector<DeviceSpan> spans;
  std::size_t places = 0;
  for (std::size_t n = 0; n < arrays.size(); ++n) {
    about_job(n, [&] {
      const DeviceBuffer& buffer = buffers.emplace_back(arrays[n], Buffer::Access::read, "data", stream);
      if (buffer.device() != buffers.front().device()) refuse("data", "lies on another device than the first");
      spans.push_back({buffer.data(), buffer.size()});
      places += places_of(buffer.size());
    });
  }
  py::list found;
  if (spans.empty()) return found;
  const OnDevice current(buffers.front().device());
  std::vector<std::uint64_t> ends(places);
  std::vector<std::uint64_t> counts(spans.size());
  Status status;
  {
    const py::gil_scoped_release release;
    status = cuda_chunk_now(spans.data(), spans.size(), ends.data(), counts.data(), reinterpret_cast<void*>(stream));
  }
  raise_if_failed(status);
  const std::uint64_t* at = ends.data();
  for (std::size_t n = 0; n < spans.size(); ++n) {
    py::array_t<std::uint64_t> array(static_cast<py::ssize_t>(counts[n]));
    if (counts[n] != 0) std::memcpy(array.mutable_data(), at, counts[n] * sizeof(std::uint64_t));
    found.append(array);
    at += places_of(spans[n].size);
  }
  return found;
}

// Digests of the spans of one array that its `ends` cut it into: shape (spans, 32).
py::array_t<std::uint8_t> blake3_spans_of(const py::object& data, const py::handle& ends, const py::object& key,
                                          std::uintptr_t stream) {
  const DeviceBuffer buffer(data, Buffer::Access::read, "data", stream);
  std::optional<Digest> secret;
  if (!key.is_none()) secret = to_key(key);
  std::vector<DeviceSpan> spans;
  std::uint64_t start = 0;
  for (const std::uint64_t end : to_ends(ends)) {
    if (end < start || end > buffer.size()) refuse("ends", "must not fall, and must stay within the data");
    spans.push_back({buffer.data() + start, end - start});
    start = end;
  }
  py::array_t<std::uint8_t> digests({static_cast<py::ssize_t>(spans.size()), static_cast<py::ssize_t>(kDigestBytes)});
  if (spans.empty()) return digests;
  auto* const out = digests.mutable_data();
  const OnDevice current(buffer.device());
  Status status;
  {
    const py::gil_scoped_release release;
    auto* const queue = reinterpret_cast<void*>(stream);
    status = secret ? cuda_blake3_keyed_now(secret->data(), spans.data(), spans.size(), out, queue)
                    : cuda_blake3_now(spans.data(), spans.size(), out, queue);
  }
  raise_if_failed(status);
  return digests;
}

}  // namespace

void bind_cuda_chunk(py::module_& module) {
  module.def("cuda_chunk_boundaries", &boundaries_of, py::arg("arrays"), py::arg("stream"));
  module.def("cuda_blake3_spans", &blake3_spans_of, py::arg("data"), py::arg("ends"), py::arg("key"),
             py::arg("stream"));
}

}  // namespace textnlp_fast::bindings

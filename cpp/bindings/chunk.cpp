#include "textnlp_fast/chunk.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <memory>
#include <vector>

#include "bindings.h"

namespace textnlp_fast::bindings {
namespace {

using Ends = py::array_t<std::uint64_t>;

Ends ends_array(const std::vector<std::uint64_t>& ends, std::size_t count) {
  Ends array(static_cast<py::ssize_t>(count));
  if (count != 0) std::memcpy(array.mutable_data(), ends.data(), count * sizeof(std::uint64_t));
  return array;
}

Ends boundaries(const py::object& data, unsigned threads) {
  const Buffer buffer(data, Buffer::Access::read, "data");
  std::vector<std::uint64_t> ends(max_chunks(buffer.size()));
  std::size_t count = 0;
  Status status;
  {
    py::gil_scoped_release release;
    status = chunk_boundaries(buffer.data(), buffer.size(), threads, ends.data(), ends.size(), &count);
  }
  raise_if_failed(status);
  return ends_array(ends, count);
}

Ends feed(Chunker& chunker, const py::object& data, unsigned threads) {
  const Buffer buffer(data, Buffer::Access::read, "data");
  std::vector<std::uint64_t> ends(max_chunks(buffer.size()));
  std::size_t count = 0;
  Status status;
  // Another thread may feed the same chunker while the GIL is free: work on a copy, and let the last one stand.
  Chunker next = chunker;
  {
    py::gil_scoped_release release;
    status = next.feed(buffer.data(), buffer.size(), threads, ends.data(), ends.size(), &count);
  }
  raise_if_failed(status);
  chunker = next;
  return ends_array(ends, count);
}

Ends finish(Chunker& chunker) {
  std::vector<std::uint64_t> ends(1);
  const bool open = chunker.finish(ends.data());
  return ends_array(ends, open ? 1 : 0);
}

}  // namespace

void bind_chunk(py::module_& module) {
  module.attr("min_chunk_bytes") = kMinChunkBytes;
  module.attr("max_chunk_bytes") = kMaxChunkBytes;
  module.def("chunk_boundaries", &boundaries, py::arg("data"), py::arg("threads"));
  py::class_<Chunker>(module, "Chunker")
      .def(py::init<>())
      .def("feed", &feed, py::arg("data"), py::arg("threads"))
      .def("finish", &finish)
      .def_property_readonly("bytes_fed", &Chunker::bytes_fed);
}

}  // namespace textnlp_fast::bindings

#include "textnlp_fast/codec.h"

#include <memory>

#include "bindings.h"

namespace textnlp_fast::bindings {
namespace {

void check_same_size(std::size_t a, std::size_t b) {
  if (a != b) raise_if_failed(Status::failure(Code::invalid_argument, "the two tensors differ in size"));
}

std::unique_ptr<Buffer> optional_buffer(const py::object& object, const char* argument, std::size_t size) {
  if (object.is_none()) return nullptr;
  auto buffer = std::make_unique<Buffer>(object, Buffer::Access::read, argument);
  check_same_size(buffer->size(), size);
  return buffer;
}

// Encodes into a caller's buffer; returns the bytes written.
std::size_t encode_into(const py::object& target, const py::object& base, unsigned dtype, std::size_t frame_size,
                        unsigned threads, const py::object& out) {
  const Buffer from(target, Buffer::Access::read, "target");
  const auto prior = optional_buffer(base, "base", from.size());
  const Buffer to(out, Buffer::Access::write, "out");
  const Dtype type = dtype_of(dtype);
  std::size_t written = 0;
  Status status;
  {
    const py::gil_scoped_release released;
    status = encode(type, from.data(), prior ? prior->data() : nullptr, from.size(), {frame_size, threads},
                    to.mutable_data(), to.size(), &written);
  }
  raise_if_failed(status);
  return written;
}

void decode_into(const py::object& payload, const py::object& out, const py::object& base, unsigned threads) {
  const Buffer from(payload, Buffer::Access::read, "payload");
  const Buffer to(out, Buffer::Access::write, "out");
  const auto prior = optional_buffer(base, "base", to.size());
  Status status;
  {
    const py::gil_scoped_release released;
    status = decode(from.data(), from.size(), prior ? prior->data() : nullptr, to.mutable_data(), to.size(), threads);
  }
  raise_if_failed(status);
}

// Walks the whole frames that `payload` starts with. A tuple a frame: (mode, dtype, encoded size, decoded size).
py::list frames(const py::object& payload) {
  const Buffer from(payload, Buffer::Access::read, "payload");
  py::list found;
  std::size_t at = 0;
  while (at < from.size()) {
    FrameInfo info;
    Status status = read_frame_header(from.data() + at, from.size() - at, &info);
    if (status.code == Code::truncated || (status.ok() && info.encoded_size > from.size() - at)) break;
    status.position += at;
    raise_if_failed(status);
    found.append(py::make_tuple(static_cast<unsigned>(info.mode), static_cast<unsigned>(info.dtype), info.encoded_size,
                                info.decoded_size));
    at += info.encoded_size;
  }
  return found;
}

py::tuple diff_tensors(const py::object& a, const py::object& b, unsigned dtype, unsigned threads) {
  const Buffer first(a, Buffer::Access::read, "a");
  const Buffer second(b, Buffer::Access::read, "b");
  check_same_size(first.size(), second.size());
  const Dtype type = dtype_of(dtype);
  DiffStats stats;
  Status status;
  {
    const py::gil_scoped_release released;
    status = diff(type, first.data(), second.data(), first.size(), threads, &stats);
  }
  raise_if_failed(status);
  return py::make_tuple(stats.elements, stats.changed, stats.max_ulp, stats.sum_ulp);
}

}  // namespace

Dtype dtype_of(unsigned number) {
  if (number >= kDtypeCount) raise_if_failed(Status::failure(Code::invalid_argument, "unknown element type"));
  return static_cast<Dtype>(number);
}

void bind_codec(py::module_& module) {
  module.def("encode_bound", &encode_bound, py::arg("size"), py::arg("frame_size"));
  module.def("encode_into", &encode_into, py::arg("target"), py::arg("base"), py::arg("dtype"), py::arg("frame_size"),
             py::arg("threads"), py::arg("out"));
  module.def("decode_into", &decode_into, py::arg("payload"), py::arg("out"), py::arg("base"), py::arg("threads"));
  module.def("frames", &frames, py::arg("payload"));
  module.def("diff", &diff_tensors, py::arg("a"), py::arg("b"), py::arg("dtype"), py::arg("threads"));
}

}  // namespace textnlp_fast::bindings

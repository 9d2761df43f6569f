// Device memory by address: where arrays lie, and copies that are done when they return.
#include <cstdint>

#include "bindings.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast::bindings {

namespace {

py::tuple place_of(const py::object& array, std::uintptr_t stream) {
  const DeviceBuffer buffer(array, Buffer::Access::write, "array", stream);
  return py::make_tuple(reinterpret_cast<std::uintptr_t>(buffer.data()), buffer.size(), buffer.device());
}

// Copies and waits: both sides are the caller's again.
void copy_now(void* to, const void* from, std::size_t size, int device, std::uintptr_t stream) {
  const OnDevice current(device);
  Status status;
  {
    const py::gil_scoped_release release;
    void* const queue = reinterpret_cast<void*>(stream);
    status = cuda_copy(to, from, size, queue);
    const Status waited = cuda_wait(queue);
    if (status.ok()) status = waited;
  }
  raise_if_failed(status);
}

void read(std::uintptr_t address, const py::object& out, int device, std::uintptr_t stream) {
  const Buffer host(out, Buffer::Access::write, "out");
  copy_now(host.mutable_data(), reinterpret_cast<const void*>(address), host.size(), device, stream);
}

void write(std::uintptr_t address, const py::object& data, int device, std::uintptr_t stream) {
  const Buffer host(data, Buffer::Access::read, "data");
  copy_now(reinterpret_cast<void*>(address), host.data(), host.size(), device, stream);
}

void move(std::uintptr_t to, std::uintptr_t source, std::size_t size, int device, std::uintptr_t stream) {
  copy_now(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(source), size, device, stream);
}

}  // namespace

void bind_cuda_place(py::module_& module) {
  module.def("cuda_place", &place_of, py::arg("array"), py::arg("stream"));
  module.def("cuda_read", &read, py::arg("address"), py::arg("out"), py::arg("device"), py::arg("stream"));
  module.def("cuda_write", &write, py::arg("address"), py::arg("data"), py::arg("device"), py::arg("stream"));
  module.def("cuda_move", &move, py::arg("to"), py::arg("source"), py::arg("size"), py::arg("device"),
             py::arg("stream"));
}

}  // namespace textnlp_fast::bindings

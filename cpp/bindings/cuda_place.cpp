// Device memory by address: where arrays lie, copies to and from the host, memory of our own.
#include <cstdint>
#include <memory>

#include "bindings.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast::bindings {

OnDevice::OnDevice(int device) { raise_if_failed(cuda_use_device(device, &before_)); }

OnDevice::~OnDevice() {
  int ignored = 0;
  (void)cuda_use_device(before_, &ignored);
}

namespace {

// Bytes on a device, given back when this goes.
class DeviceMemory {
 public:
  DeviceMemory(std::size_t size, int device, std::uintptr_t stream) : size_(size), device_(device) {
    const OnDevice current(device);
    raise_if_failed(cuda_allocate(&at_, size, reinterpret_cast<void*>(stream)));
  }
  ~DeviceMemory() {
    int before = 0;
    if (!cuda_use_device(device_, &before).ok()) return;
    cuda_free(at_, nullptr);
    int ignored = 0;
    (void)cuda_use_device(before, &ignored);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  [[nodiscard]] std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(at_); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] int device() const { return device_; }

 private:
  void* at_ = nullptr;
  std::size_t size_;
  int device_;
};

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
  py::class_<DeviceMemory>(module, "DeviceMemory")
      .def(py::init<std::size_t, int, std::uintptr_t>(), py::arg("size_bytes"), py::arg("device"), py::arg("stream"))
      .def_property_readonly("address", &DeviceMemory::address)
      .def_property_readonly("nbytes", &DeviceMemory::size)
      .def_property_readonly("device", &DeviceMemory::device);
  module.def("cuda_place", &place_of, py::arg("array"), py::arg("stream"));
  module.def("cuda_read", &read, py::arg("address"), py::arg("out"), py::arg("device"), py::arg("stream"));
  module.def("cuda_write", &write, py::arg("address"), py::arg("data"), py::arg("device"), py::arg("stream"));
  module.def("cuda_move", &move, py::arg("to"), py::arg("source"), py::arg("size"), py::arg("device"),
             py::arg("stream"));
}

}  // namespace textnlp_fast::bindings

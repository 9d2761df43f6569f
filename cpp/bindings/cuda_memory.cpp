// Memory of a device, page-locked memory, and copies between them that say when they are done.
#include "textnlp_fast/cuda_memory.h"

#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "bindings.h"
#include "dlpack.h"

namespace textnlp_fast::bindings {
namespace {

void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }
std::uintptr_t address(const void* at) { return reinterpret_cast<std::uintptr_t>(at); }

// Runs a call without the GIL, on a device.
template <class Call>
void on_device(int device, Call call) {
  const OnDevice current(device);
  Status status;
  {
    const py::gil_scoped_release release;
    status = call();
  }
  raise_if_failed(status);
}

class PinnedMemory {
 public:
  PinnedMemory(std::size_t size, int device) : size_(size) {
    on_device(device, [&] { return cuda_host_allocate(size == 0 ? 1 : size, &at_); });
  }
  ~PinnedMemory() { cuda_host_release(at_); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  [[nodiscard]] py::buffer_info info() const {
    return {at_, 1, py::format_descriptor<std::uint8_t>::format(), static_cast<py::ssize_t>(size_)};
  }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  void* at_ = nullptr;
  std::size_t size_;
};

class DeviceMemory {
 public:
  DeviceMemory(std::size_t size, int device, std::uintptr_t stream) : size_(size), device_(device) {
    on_device(device, [&] { return cuda_allocate(size, pointer(stream), &at_dev_); });
  }
  // In the order of the default stream, behind what others that wait for it were given.
  ~DeviceMemory() {
    int before = 0;
    if (cuda_use_device(device_, &before).ok()) cuda_release(at_dev_, nullptr);
    (void)cuda_use_device(before, &before);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  [[nodiscard]] void* data() const { return at_dev_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] int device() const { return device_; }

 private:
  void* at_dev_ = nullptr;
  std::size_t size_;
  int device_;
};

// What a capsule keeps: the memory lives as long as whoever took the tensor.
struct Exported {
  DLManagedTensor tensor{};
  std::shared_ptr<DeviceMemory> memory;
  std::vector<std::int64_t> shape;
};

void destroy_capsule(PyObject* capsule) {
  // One that was consumed has another name, and its tensor is the consumer's to delete.
  if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;
  auto* tensor = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
  tensor->deleter(tensor);
}

py::capsule dlpack_of(const std::shared_ptr<DeviceMemory>& memory, std::size_t offset, std::vector<std::int64_t> shape,
                      std::uint8_t code, std::uint8_t bits) {
  std::size_t size = bits / 8U;
  for (const std::int64_t extent : shape) size *= static_cast<std::size_t>(extent);
  if (offset > memory->size() || size > memory->size() - offset) refuse("shape", "passes the end of the memory");
  auto exported = std::make_unique<Exported>();
  exported->memory = memory;
  exported->shape = std::move(shape);
  DLTensor& tensor = exported->tensor.dl_tensor;
  tensor.data = static_cast<std::uint8_t*>(memory->data()) + offset;
  tensor.device = {kDLCUDA, memory->device()};
  tensor.ndim = static_cast<std::int32_t>(exported->shape.size());
  tensor.dtype = {code, bits, 1};
  tensor.shape = exported->shape.data();
  exported->tensor.manager_ctx = exported.get();
  exported->tensor.deleter = [](DLManagedTensor* self) { delete static_cast<Exported*>(self->manager_ctx); };
  DLManagedTensor* managed = &exported.release()->tensor;  // the capsule's from here on
  PyObject* capsule = PyCapsule_New(managed, "dltensor", &destroy_capsule);
  if (capsule == nullptr) {
    managed->deleter(managed);
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::capsule>(capsule);
}

// A stream or an event of a device.
template <Status (*kCreate)(void**) noexcept, void (*kDestroy)(void*) noexcept>
class Handle {
 public:
  explicit Handle(int device) : device_(device) {
    on_device(device, [&] { return kCreate(&at_); });
  }
  ~Handle() { kDestroy(at_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  [[nodiscard]] void* get() const { return at_; }
  [[nodiscard]] int device() const { return device_; }

 private:
  void* at_ = nullptr;
  int device_;
};
using CudaStream = Handle<cuda_stream_create, cuda_stream_destroy>;
using CudaEvent = Handle<cuda_event_create, cuda_event_destroy>;

bool is_done(const CudaEvent& event) {
  bool done = false;
  on_device(event.device(), [&] { return cuda_event_done(event.get(), &done); });
  return done;
}

void check_range(std::size_t offset, std::size_t count, const DeviceBuffer& array) {
  if (offset > array.size() || count > array.size() - offset) refuse("offset", "the copy passes the end of the array");
}

void to_device(const py::object& data, const py::object& array, std::size_t offset, std::uintptr_t stream) {
  const Buffer from(data, Buffer::Access::read, "data");
  const DeviceBuffer to(array, Buffer::Access::write, "array", stream);
  check_range(offset, from.size(), to);
  on_device(to.device(), [&] { return cuda_to_device(to.data() + offset, from.data(), from.size(), pointer(stream)); });
}

void to_host(const py::object& array, std::size_t offset, const py::object& out, std::uintptr_t stream) {
  const DeviceBuffer from(array, Buffer::Access::read, "array", stream);
  const Buffer to(out, Buffer::Access::write, "out");
  check_range(offset, to.size(), from);
  on_device(from.device(),
            [&] { return cuda_to_host(to.mutable_data(), from.data() + offset, to.size(), pointer(stream)); });
}

}  // namespace

void bind_cuda_memory(py::module_& module) {
  py::class_<PinnedMemory>(module, "PinnedMemory", py::buffer_protocol())
      .def(py::init<std::size_t, int>(), py::arg("size_bytes"), py::arg("device"))
      .def_property_readonly("nbytes", &PinnedMemory::size)
      .def_buffer([](PinnedMemory& memory) { return memory.info(); });
  py::class_<DeviceMemory, std::shared_ptr<DeviceMemory>>(module, "DeviceMemory")
      .def(py::init<std::size_t, int, std::uintptr_t>(), py::arg("size_bytes"), py::arg("device"), py::arg("stream"))
      .def_property_readonly("address", [](const DeviceMemory& memory) { return address(memory.data()); })
      .def_property_readonly("nbytes", &DeviceMemory::size)
      .def_property_readonly("device", &DeviceMemory::device)
      .def("dlpack", &dlpack_of, py::arg("offset"), py::arg("shape"), py::arg("code"), py::arg("bits"));
  py::class_<CudaStream>(module, "CudaStream")
      .def(py::init<int>(), py::arg("device"))
      .def_property_readonly("address", [](const CudaStream& stream) { return address(stream.get()); })
      .def("wait",
           [](const CudaStream& stream) { on_device(stream.device(), [&] { return cuda_wait(stream.get()); }); });
  py::class_<CudaEvent>(module, "CudaEvent")
      .def(py::init<int>(), py::arg("device"))
      .def(
          "record",
          [](const CudaEvent& event, std::uintptr_t stream) {
            on_device(event.device(), [&] { return cuda_event_record(event.get(), pointer(stream)); });
          },
          py::arg("stream"))
      .def("is_done", &is_done)
      .def("wait",
           [](const CudaEvent& event) { on_device(event.device(), [&] { return cuda_event_wait(event.get()); }); });
  module.def("cuda_to_device", &to_device, py::arg("data"), py::arg("array"), py::arg("offset"), py::arg("stream"));
  module.def("cuda_to_host", &to_host, py::arg("array"), py::arg("offset"), py::arg("out"), py::arg("stream"));
}

}  // namespace textnlp_fast::bindings

#include <string>

#include "bindings.h"
#include "dlpack.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast::bindings {
namespace {

bool is_c_contiguous(const DLTensor& tensor) {
  if (tensor.strides == nullptr) return true;
  std::int64_t expected = 1;
  for (std::int32_t axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (tensor.shape[axis] == 0) return true;
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != expected) return false;
    expected *= tensor.shape[axis];
  }
  return true;
}

// The tensor inside a capsule, checked, as bytes.
std::size_t bytes_of(const DLTensor& tensor, const char* argument) {
  if (!is_c_contiguous(tensor)) refuse(argument, "needs a C-contiguous tensor; pass tensor.contiguous()");
  std::size_t count = 1;
  for (std::int32_t axis = 0; axis < tensor.ndim; ++axis) count *= static_cast<std::size_t>(tensor.shape[axis]);
  const std::size_t bits = static_cast<std::size_t>(tensor.dtype.bits) * tensor.dtype.lanes;
  if (bits % 8 != 0) refuse(argument, "has a sub-byte element type; pass a view of its bytes");
  return count * (bits / 8);
}

const DLTensor& tensor_in(const py::object& capsule) {
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) throw py::error_already_set();
  return managed->dl_tensor;
}

void check_no_grad(const py::handle& object, const char* argument) {
  if (py::hasattr(object, "requires_grad") && object.attr("requires_grad").cast<bool>()) {
    refuse(argument, "is a tensor that requires grad; pass tensor.detach()");
  }
}

std::int32_t dlpack_device(const py::handle& object, std::int32_t* id) {
  const auto device = object.attr("__dlpack_device__")().cast<py::tuple>();
  *id = device[1].cast<std::int32_t>();
  return device[0].cast<std::int32_t>();
}

}  // namespace

void refuse(const char* argument, const std::string& reason) {
  py::object error = py::module_::import("textnlp_fast.errors").attr("InvalidInputError");
  PyErr_SetString(error.ptr(), (std::string(argument) + ": " + reason).c_str());
  throw py::error_already_set();
}

Buffer::Buffer(const py::handle& object, Access access, const char* argument) {
  if (open_buffer(object, access, argument)) return;
  open_dlpack(object, access, argument);
}

Buffer::~Buffer() {
  if (has_view_) PyBuffer_Release(&view_);
}

bool Buffer::open_buffer(const py::handle& object, Access access, const char* argument) {
  if (PyObject_CheckBuffer(object.ptr()) == 0) return false;
  const int flags = access == Access::write ? (PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) : PyBUF_C_CONTIGUOUS;
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) {
    PyErr_Clear();
    refuse(argument, access == Access::write ? "needs a writable C-contiguous buffer" : "needs a C-contiguous buffer");
  }
  has_view_ = true;
  data_ = static_cast<std::uint8_t*>(view_.buf);
  size_ = static_cast<std::size_t>(view_.len);
  return true;
}

void Buffer::open_dlpack(const py::handle& object, Access access, const char* argument) {
  if (!py::hasattr(object, "__dlpack__")) {
    refuse(argument, "needs an object with the buffer protocol or DLPack (bytes, memoryview, numpy, torch)");
  }
  if (access == Access::write) check_no_grad(object, argument);
  std::int32_t id = 0;
  const std::int32_t kind = dlpack_device(object, &id);
  if (kind != kDLCPU && kind != kDLCUDAHost) refuse(argument, "lives on a device; this call takes host memory");
  // The capsule is kept, unconsumed: its own destructor frees the tensor when this view goes.
  capsule_ = object.attr("__dlpack__")();
  const DLTensor& tensor = tensor_in(capsule_);
  size_ = bytes_of(tensor, argument);
  data_ = static_cast<std::uint8_t*>(tensor.data) + tensor.byte_offset;
}

DeviceBuffer::DeviceBuffer(const py::handle& object, Buffer::Access access, const char* argument,
                           std::uintptr_t stream) {
  if (access == Buffer::Access::write) check_no_grad(object, argument);
  if (py::hasattr(object, "__dlpack__")) {
    if (dlpack_device(object, &device_) != kDLCUDA) refuse(argument, "lives in host memory; the others on a device");
    // What the producer has queued is to be done before what this stream is given; 1 stands for the default stream.
    capsule_ = object.attr("__dlpack__")(py::arg("stream") = stream == 0 ? std::uintptr_t{1} : stream);
    const DLTensor& tensor = tensor_in(capsule_);
    size_ = bytes_of(tensor, argument);
    data_ = static_cast<std::uint8_t*>(tensor.data) + tensor.byte_offset;
    return;
  }
  if (!py::hasattr(object, "__cuda_array_interface__")) {
    refuse(argument, "needs an array on a device: with DLPack or __cuda_array_interface__ (torch, cupy, jax)");
  }
  const auto facts = object.attr("__cuda_array_interface__").cast<py::dict>();
  if (facts.contains("strides") && !facts["strides"].is_none()) {
    refuse(argument, "needs a C-contiguous array; pass a contiguous copy");
  }
  const auto place = facts["data"].cast<py::tuple>();
  if (access == Buffer::Access::write && place[1].cast<bool>()) refuse(argument, "needs a writable array");
  data_ = reinterpret_cast<std::uint8_t*>(place[0].cast<std::uintptr_t>());
  // "<f2": the bytes of an element stand behind its order and kind.
  size_ = std::stoul(facts["typestr"].cast<std::string>().substr(2));
  for (const py::handle extent : facts["shape"].cast<py::tuple>()) size_ *= extent.cast<std::size_t>();
  const bool queued = facts.contains("stream") && !facts["stream"].is_none();
  if (queued) raise_if_failed(cuda_wait(reinterpret_cast<void*>(facts["stream"].cast<std::uintptr_t>())));
  device_ = cuda_device_of(data_);
}

}  // namespace textnlp_fast::bindings

#include <string>

#include "bindings.h"
#include "dlpack.h"

namespace textnlp_fast::bindings {
namespace {

[[noreturn]] void refuse(const char* argument, const std::string& reason) {
  py::object error = py::module_::import("textnlp_fast.errors").attr("InvalidInputError");
  PyErr_SetString(error.ptr(), (std::string(argument) + ": " + reason).c_str());
  throw py::error_already_set();
}

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

}  // namespace

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
  if (access == Access::write && py::hasattr(object, "requires_grad") && object.attr("requires_grad").cast<bool>()) {
    refuse(argument, "is a tensor that requires grad; pass tensor.detach()");
  }
  const auto device = object.attr("__dlpack_device__")().cast<py::tuple>();
  const auto kind = device[0].cast<std::int32_t>();
  if (kind != kDLCPU && kind != kDLCUDAHost) refuse(argument, "lives on a device; this call takes host memory");
  capsule_ = object.attr("__dlpack__")();
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor"));
  if (managed == nullptr) throw py::error_already_set();
  // The capsule is kept, unconsumed: its own destructor frees the tensor when this view goes.
  const DLTensor& tensor = managed->dl_tensor;
  if (!is_c_contiguous(tensor)) refuse(argument, "needs a C-contiguous tensor; pass tensor.contiguous()");
  std::size_t count = 1;
  for (std::int32_t axis = 0; axis < tensor.ndim; ++axis) count *= static_cast<std::size_t>(tensor.shape[axis]);
  const std::size_t bits = static_cast<std::size_t>(tensor.dtype.bits) * tensor.dtype.lanes;
  if (bits % 8 != 0) refuse(argument, "has a sub-byte element type; pass a view of its bytes");
  data_ = static_cast<std::uint8_t*>(tensor.data) + tensor.byte_offset;
  size_ = count * (bits / 8);
}

}  // namespace textnlp_fast::bindings

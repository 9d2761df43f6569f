#include <pybind11/stl.h>

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

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

struct Interface {
  std::uintptr_t address = 0;
  std::size_t size = 0;
  std::uintptr_t stream = 0;
  bool queued = false;
  bool read_only = false;
  bool contiguous = true;
  bool masked = false;
};

bool given(const py::dict& facts, const char* name) { return facts.contains(name) && !facts[name].is_none(); }

// https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, version 3. Throws what casts throw.
Interface read_interface(const py::dict& facts) {
  Interface found;
  const auto place = facts["data"].cast<py::tuple>();
  if (place.size() != 2) throw py::value_error("data");
  found.address = place[0].cast<std::uintptr_t>();
  found.read_only = place[1].cast<bool>();
  // "<f2": the bytes of an element stand behind its order and kind.
  const auto type = facts["typestr"].cast<std::string>();
  const std::size_t element = std::stoul(type.substr(std::min<std::size_t>(2, type.size())));
  const auto shape = facts["shape"].cast<std::vector<std::size_t>>();
  found.size = element;
  for (const std::size_t extent : shape) {
    if (__builtin_mul_overflow(found.size, extent, &found.size)) throw py::value_error("shape");
  }
  if (given(facts, "strides")) {
    const auto strides = facts["strides"].cast<std::vector<std::int64_t>>();
    if (strides.size() != shape.size()) throw py::value_error("strides");
    auto expected = static_cast<std::int64_t>(element);
    for (std::size_t axis = shape.size(); axis-- > 0 && found.size != 0;) {
      if (shape[axis] != 1 && strides[axis] != expected) found.contiguous = false;
      expected *= static_cast<std::int64_t>(shape[axis]);
    }
  }
  found.masked = given(facts, "mask");
  found.queued = given(facts, "stream");
  if (found.queued) found.stream = facts["stream"].cast<std::uintptr_t>();
  return found;
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
    const std::int32_t kind = dlpack_device(object, &device_);
    if (kind != kDLCUDA && kind != kDLCUDAManaged) refuse(argument, "lives in host memory; the others on a device");
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
  open_interface(object, access, argument, stream);
}

void DeviceBuffer::open_interface(const py::handle& object, Buffer::Access access, const char* argument,
                                  std::uintptr_t stream) {
  const py::object facts = object.attr("__cuda_array_interface__");
  Interface found;
  try {
    found = read_interface(facts.cast<py::dict>());
  } catch (const std::exception&) {  // of Python, of casts, of numbers
    refuse(argument, "has a __cuda_array_interface__ that is not as the protocol says");
  }
  if (!found.contiguous) refuse(argument, "needs a C-contiguous array; pass a contiguous copy");
  if (found.masked) refuse(argument, "is a masked array; pass its data");
  if (access == Buffer::Access::write && found.read_only) refuse(argument, "needs a writable array");
  data_ = reinterpret_cast<std::uint8_t*>(found.address);
  size_ = found.size;
  device_ = size_ == 0 ? 0 : cuda_device_of(data_);
  if (device_ < 0) refuse(argument, "is at an address that is of no device");
  if (!found.queued) return;
  if (found.stream == 0) refuse(argument, "names the stream 0; the protocol has 1 for the default stream");
  // 0 and 1 are the default stream here.
  if (found.stream == stream || (found.stream == 1 && stream == 0)) return;
  const OnDevice current(device_);
  raise_if_failed(cuda_order(reinterpret_cast<void*>(found.stream), reinterpret_cast<void*>(stream)));
}

}  // namespace textnlp_fast::bindings

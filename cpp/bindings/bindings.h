// What the binding files share: one `bind_<concept>` each, the door for buffers, and the raising of a Status.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "textnlp_fast/cuda.h"
#include "textnlp_fast/dtype.h"
#include "textnlp_fast/hash.h"
#include "textnlp_fast/status.h"

namespace textnlp_fast::bindings {

namespace py = pybind11;

void bind_cpu(py::module_& module);
void bind_hash(py::module_& module);
void bind_chunk(py::module_& module);
void bind_codec(py::module_& module);
void bind_low_rank(py::module_& module);
void bind_cuda(py::module_& module);
void bind_cuda_memory(py::module_& module);
void bind_cuda_place(py::module_& module);
void bind_cuda_work(py::module_& module);
void bind_cuda_chunk(py::module_& module);
void bind_cuda_low_rank(py::module_& module);
void bind_cuda_encode(py::module_& module);
void bind_nvml(py::module_& module);

// Raises the Python exception of a failed status; returns if it is ok. Needs the GIL.
void raise_if_failed(const Status& status);

// A contiguous block of host memory owned by a Python object, held for as long as this lives. Takes anything with the
// buffer protocol (bytes, memoryview, mmap, numpy) or DLPack on the CPU (torch, including bfloat16). Nothing is copied:
// an array that is not C-contiguous, or lives on a device, raises.
class Buffer {
 public:
  enum class Access { read, write };
  Buffer(const py::handle& object, Access access, const char* argument);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] const std::uint8_t* data() const noexcept { return data_; }
  [[nodiscard]] std::uint8_t* mutable_data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  bool open_buffer(const py::handle& object, Access access, const char* argument);
  void open_dlpack(const py::handle& object, Access access, const char* argument);

  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  Py_buffer view_{};
  bool has_view_ = false;
  py::object capsule_;
};

// The same on a CUDA device, through DLPack or __cuda_array_interface__: what its producer has queued is done before
// what `stream` is given next. Waits for nothing.
class DeviceBuffer {
 public:
  DeviceBuffer(const py::handle& object, Buffer::Access access, const char* argument, std::uintptr_t stream);

  [[nodiscard]] std::uint8_t* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] int device() const noexcept { return device_; }

 private:
  void open_interface(const py::handle& object, Buffer::Access access, const char* argument, std::uintptr_t stream);

  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::int32_t device_ = 0;
  py::object capsule_;
};

// A device is the current one of this thread while this lives.
class OnDevice {
 public:
  explicit OnDevice(int device) { raise_if_failed(cuda_use_device(device, &before_)); }
  ~OnDevice() {
    int ignored = 0;
    (void)cuda_use_device(before_, &ignored);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

// What is done for one of many things: an error of this package that comes out of it has its number as `job`.
template <class Body>
void about_job(std::size_t number, const Body& body) {
  try {
    body();
  } catch (py::error_already_set& error) {
    if (py::hasattr(error.value(), "job")) error.value().attr("job") = number;
    throw;
  }
}

// An element type from its number; raises if there is none.
Dtype dtype_of(unsigned number);

// A key of 32 bytes, and offsets behind spans, out of what Python gives.
Digest to_key(const py::handle& object);
std::vector<std::uint64_t> to_ends(const py::handle& object);

// Raises InvalidInputError about an argument.
[[noreturn]] void refuse(const char* argument, const std::string& reason);

}  // namespace textnlp_fast::bindings

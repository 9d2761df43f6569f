#include <cstddef>
#include <deque>
#include <vector>

#include "bindings.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast::bindings {
namespace {

// By what an array says of itself; whoever says nothing is taken for host memory.
bool says_device(const py::handle& object) {
  if (py::hasattr(object, "__dlpack_device__")) {
    return object.attr("__dlpack_device__")().cast<py::tuple>()[0].cast<int>() == 2;
  }
  return py::hasattr(object, "__cuda_array_interface__");
}

Dtype known_dtype(const py::handle& number) {
  const auto dtype = number.cast<unsigned>();
  if (dtype >= kDtypeCount) refuse("dtype", "is unknown");
  return static_cast<Dtype>(dtype);
}

// Encodes arrays on one device into buffers there or in host memory; returns the bytes of each payload. A failure names
// the job by its number, as `job`.
py::list encode_payloads(const py::list& targets, const py::list& bases, const py::list& dtypes, const py::list& outs,
                         std::size_t frame_size, std::uintptr_t stream) {
  const std::size_t count = targets.size();
  if (bases.size() != count || outs.size() != count || dtypes.size() != count) {
    refuse("targets", "there are not as many bases, dtypes and outputs");
  }
  std::deque<Buffer> on_host;
  std::deque<DeviceBuffer> on_device;
  std::vector<EncodeJob> jobs(count);
  int device = 0;
  for (std::size_t n = 0; n < count; ++n) {
    const DeviceBuffer& target = on_device.emplace_back(targets[n], Buffer::Access::read, "target", stream);
    if (n == 0) device = target.device();
    if (target.device() != device) refuse("target", "lies on another device than the first");
    jobs[n] = {target.data(), nullptr, target.size(), known_dtype(dtypes[n]), nullptr, 0, says_device(outs[n])};
    if (jobs[n].out_on_device) {
      const DeviceBuffer& out = on_device.emplace_back(outs[n], Buffer::Access::write, "out", stream);
      if (out.device() != device) refuse("out", "lies on another device than the target");
      jobs[n].out = out.data();
      jobs[n].capacity = out.size();
    } else {
      const Buffer& out = on_host.emplace_back(outs[n], Buffer::Access::write, "out");
      jobs[n].out = out.mutable_data();
      jobs[n].capacity = out.size();
    }
    if (bases[n].is_none()) continue;
    const DeviceBuffer& base = on_device.emplace_back(bases[n], Buffer::Access::read, "base", stream);
    if (base.device() != device) refuse("base", "lies on another device than the target");
    if (base.size() != target.size()) refuse("base", "differs from the target in size");
    jobs[n].base_dev = base.data();
  }
  py::list sizes;
  if (count == 0) return sizes;
  const OnDevice current(device);
  std::vector<std::size_t> written(count);
  std::size_t failed = count;
  Status status;
  {
    const py::gil_scoped_release release;
    status =
        cuda_encode_payloads(jobs.data(), count, frame_size, written.data(), reinterpret_cast<void*>(stream), &failed);
  }
  try {
    raise_if_failed(status);
  } catch (py::error_already_set& error) {
    if (failed < count) error.value().attr("job") = failed;
    throw;
  }
  for (const std::size_t size : written) sizes.append(size);
  return sizes;
}

}  // namespace

void bind_cuda_encode(py::module_& module) {
  module.def("cuda_encode_payloads", &encode_payloads, py::arg("targets"), py::arg("bases"), py::arg("dtypes"),
             py::arg("outs"), py::arg("frame_size"), py::arg("stream"));
}

}  // namespace textnlp_fast::bindings

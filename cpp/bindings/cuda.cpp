#include "textnlp_fast/cuda.h"

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "bindings.h"
#include "codec/ordered.h"

namespace textnlp_fast::bindings {
namespace {

py::dict info_dict() {
  CudaInfo info;
  {
    py::gil_scoped_release release;
    info = cuda_info();
  }
  py::dict dict;
  dict["compiled"] = info.compiled;
  dict["emulated"] = info.emulated;
  dict["runtime_version"] = info.runtime_version;
  dict["driver_version"] = info.driver_version;
  dict["device_count"] = info.device_count;
  dict["reason"] = info.reason;
  return dict;
}

template <class Bits, class Operation>
void run_lanes(const Buffer& left, const Buffer& right, const Buffer& out, Operation operation) {
  for (std::size_t at = 0; at + sizeof(Bits) <= out.size(); at += sizeof(Bits)) {
    Bits a = 0;
    Bits b = 0;
    std::memcpy(&a, left.data() + at, sizeof a);
    std::memcpy(&b, right.data() + at, sizeof b);
    const Bits result = operation(a, b);
    std::memcpy(out.mutable_data() + at, &result, sizeof result);
  }
}

template <class Operation>
void run_width(const Buffer& left, const Buffer& right, const Buffer& out, unsigned width, Operation operation) {
  switch (width) {
    case 1: return run_lanes<std::uint8_t>(left, right, out, operation);
    case 2: return run_lanes<std::uint16_t>(left, right, out, operation);
    case 4: return run_lanes<std::uint32_t>(left, right, out, operation);
    case 8: return run_lanes<std::uint64_t>(left, right, out, operation);
    default: raise_if_failed(Status::failure(Code::invalid_argument, "width: one of 1, 2, 4, 8 bytes"));
  }
}

// Runs the arithmetic that the kernels inline, one element after the other, on this processor: what a machine without a
// device can check of them.
void twin_lanes(const std::string& operation, const py::object& left_object, const py::object& right_object,
                const py::object& out_object, unsigned width) {
  const Buffer left(left_object, Buffer::Access::read, "left");
  const Buffer right(right_object, Buffer::Access::read, "right");
  const Buffer out(out_object, Buffer::Access::write, "out");
  if (left.size() != out.size() || right.size() != out.size()) {
    raise_if_failed(Status::failure(Code::invalid_argument, "left, right and out differ in size"));
  }
  if (operation == "ulp_difference") {
    run_width(left, right, out, width,
              [](auto a, auto b) { return static_cast<decltype(a)>(to_ordered(a) - to_ordered(b)); });
  } else if (operation == "ulp_apply") {
    run_width(left, right, out, width,
              [](auto a, auto b) { return from_ordered(static_cast<decltype(a)>(to_ordered(a) + b)); });
  } else {
    raise_if_failed(Status::failure(Code::invalid_argument, "operation: 'ulp_difference' or 'ulp_apply'"));
  }
}

using Launch = Status (*)(const void*, const void*, void*, std::size_t, Dtype, void*) noexcept;

void launch(Launch call, std::uintptr_t left, std::uintptr_t right, std::uintptr_t out, std::size_t count,
            unsigned dtype, std::uintptr_t stream) {
  Status status;
  {
    py::gil_scoped_release release;
    status = call(reinterpret_cast<const void*>(left), reinterpret_cast<const void*>(right),
                  reinterpret_cast<void*>(out), count, static_cast<Dtype>(dtype), reinterpret_cast<void*>(stream));
  }
  raise_if_failed(status);
}

// Decodes host payloads into arrays on one device. A failure names the job by its number, as `job`.
void decode_payloads(const py::list& payloads, const py::list& bases, const py::list& outs, std::uintptr_t stream) {
  const std::size_t count = payloads.size();
  if (bases.size() != count || outs.size() != count) refuse("payloads", "there are not as many bases and outputs");
  std::deque<Buffer> from;
  std::deque<DeviceBuffer> on_device;
  std::vector<DecodeJob> jobs(count);
  int device = 0;
  for (std::size_t n = 0; n < count; ++n) {
    const Buffer& payload = from.emplace_back(payloads[n], Buffer::Access::read, "payload");
    const DeviceBuffer& out = on_device.emplace_back(outs[n], Buffer::Access::write, "out", stream);
    if (n == 0) device = out.device();
    if (out.device() != device) refuse("out", "lies on another device than the first");
    jobs[n] = {payload.data(), payload.size(), nullptr, out.data(), out.size()};
    if (bases[n].is_none()) continue;
    const DeviceBuffer& base = on_device.emplace_back(bases[n], Buffer::Access::read, "base", stream);
    if (base.device() != device) refuse("base", "lies on another device than the output");
    if (base.size() != out.size()) refuse("base", "differs from the output in size");
    jobs[n].base_dev = base.data();
  }
  if (count == 0) return;
  const OnDevice current(device);
  std::size_t failed = count;
  Status status;
  {
    const py::gil_scoped_release release;
    status = cuda_decode_payloads(jobs.data(), count, reinterpret_cast<void*>(stream), &failed);
  }
  if (status.ok()) return;
  try {
    raise_if_failed(status);
  } catch (py::error_already_set& error) {
    if (failed < count) error.value().attr("job") = failed;
    throw;
  }
}

// Digests of arrays on one device, 32 bytes each.
py::list blake3_of(const py::list& arrays, std::uintptr_t stream) {
  std::deque<DeviceBuffer> buffers;
  std::vector<DeviceSpan> spans;
  spans.reserve(arrays.size());
  for (const py::handle array : arrays) {
    const DeviceBuffer& buffer = buffers.emplace_back(array, Buffer::Access::read, "data", stream);
    if (buffer.device() != buffers.front().device()) refuse("data", "lies on another device than the first");
    spans.push_back({buffer.data(), buffer.size()});
  }
  py::list digests;
  if (spans.empty()) return digests;
  const OnDevice current(buffers.front().device());
  std::vector<std::uint8_t> found(spans.size() * 32);
  Status status;
  {
    const py::gil_scoped_release release;
    status = cuda_blake3_now(spans.data(), spans.size(), found.data(), reinterpret_cast<void*>(stream));
  }
  raise_if_failed(status);
  for (std::size_t n = 0; n < spans.size(); ++n) {
    digests.append(py::bytes(reinterpret_cast<const char*>(found.data() + n * 32), 32));
  }
  return digests;
}

py::tuple diff_of(const py::object& a, const py::object& b, unsigned dtype, std::uintptr_t stream) {
  const DeviceBuffer first(a, Buffer::Access::read, "a", stream);
  const DeviceBuffer second(b, Buffer::Access::read, "b", stream);
  if (first.size() != second.size()) refuse("b", "differs from a in size");
  if (first.device() != second.device()) refuse("b", "lies on another device than a");
  if (dtype >= kDtypeCount) refuse("dtype", "is unknown");
  const std::size_t element = element_size(static_cast<Dtype>(dtype));
  if (first.size() % element != 0) refuse("a", "has a size that is not a multiple of the element size");
  const OnDevice current(first.device());
  const DevicePair pair{first.data(), second.data(), first.size(), static_cast<Dtype>(dtype)};
  DeviceDiff found{};
  Status status;
  {
    const py::gil_scoped_release release;
    status = cuda_diff_now(&pair, 1, &found, reinterpret_cast<void*>(stream));
  }
  raise_if_failed(status);
  const auto sum = static_cast<unsigned __int128>(found.sum_high) << 64 | found.sum_low;
  return py::make_tuple(first.size() / element, found.changed, found.max_ulp, static_cast<double>(sum));
}

}  // namespace

OnDevice::OnDevice(int device) { raise_if_failed(cuda_use_device(device, &before_)); }

OnDevice::~OnDevice() {
  int ignored = 0;
  (void)cuda_use_device(before_, &ignored);
}

void bind_cuda(py::module_& module) {
  module.def("cuda_blake3", &blake3_of, py::arg("arrays"), py::arg("stream"));
  module.def("cuda_diff", &diff_of, py::arg("a"), py::arg("b"), py::arg("dtype"), py::arg("stream"));
  module.def("cuda_decode_payloads", &decode_payloads, py::arg("payloads"), py::arg("bases"), py::arg("outs"),
             py::arg("stream"));
  module.def("cuda_info", &info_dict);
  module.def("twin_lanes", &twin_lanes, py::arg("operation"), py::arg("left"), py::arg("right"), py::arg("out"),
             py::arg("width"));
  // Device addresses and a stream as integers, as torch and cupy give them.
  module.def("cuda_xor", [](std::uintptr_t target, std::uintptr_t base, std::uintptr_t out, std::size_t size_bytes,
                            std::uintptr_t stream) {
    const auto call = [](const void* a, const void* b, void* c, std::size_t size, Dtype, void* queue) noexcept {
      return cuda_xor(a, b, c, size, queue);
    };
    launch(call, target, base, out, size_bytes, 0, stream);
  });
  module.def("cuda_ulp_difference",
             [](std::uintptr_t target, std::uintptr_t base, std::uintptr_t out, std::size_t count, unsigned dtype,
                std::uintptr_t stream) { launch(&cuda_ulp_difference, target, base, out, count, dtype, stream); });
  module.def("cuda_ulp_apply",
             [](std::uintptr_t base, std::uintptr_t difference, std::uintptr_t out, std::size_t count, unsigned dtype,
                std::uintptr_t stream) { launch(&cuda_ulp_apply, base, difference, out, count, dtype, stream); });
}

}  // namespace textnlp_fast::bindings

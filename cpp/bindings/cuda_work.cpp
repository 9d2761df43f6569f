// Work that lies ready on a device, to be timed by its clock: what benches measure is what kernels do, not what a call
// copies and lists before.
#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "textnlp_fast/chunk.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/cuda_memory.h"

namespace textnlp_fast::bindings {
namespace {

using Address = std::uintptr_t;

class Memory {
 public:
  Memory(std::size_t size, int device) : size_(size), device_(device) {
    raise_if_failed(cuda_allocate(size, nullptr, &at_));
  }
  ~Memory() {
    int before = 0;
    if (!cuda_use_device(device_, &before).ok()) return;
    cuda_release(at_, nullptr);
    int ignored = 0;
    (void)cuda_use_device(before, &ignored);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  template <class T>
  [[nodiscard]] T* at(std::size_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<std::uint8_t*>(at_) + offset);
  }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  void* at_ = nullptr;
  std::size_t size_;
  int device_;
};

using Shared = std::shared_ptr<Memory>;

Shared allocated(std::size_t size, int device) { return std::make_shared<Memory>(size, device); }

template <class T>
Shared copied(const std::vector<T>& list, int device) {
  const Shared memory = allocated(list.size() * sizeof(T), device);
  raise_if_failed(cuda_copy(memory->at<void>(), list.data(), list.size() * sizeof(T), nullptr));
  raise_if_failed(cuda_wait(nullptr));
  return memory;
}

class Work {
 public:
  Work(int device, std::function<Status()> queue, Shared result = nullptr)
      : device_(device), queue_(std::move(queue)), result_(std::move(result)) {}

  std::vector<double> seconds(unsigned rounds, const Work* restore) const {
    const OnDevice current(device_);
    void* watch = nullptr;
    raise_if_failed(cuda_watch_open(&watch));
    std::vector<double> found(rounds);
    Status status;
    {
      const py::gil_scoped_release release;
      for (double& round : found) {
        if (status.ok() && restore != nullptr) status = restore->queue_();
        if (status.ok()) status = cuda_watch_start(watch, nullptr);
        if (status.ok()) status = queue_();
        if (status.ok()) status = cuda_watch_stop(watch, nullptr, &round);
      }
    }
    cuda_watch_close(watch);
    raise_if_failed(status);
    return found;
  }

  [[nodiscard]] py::bytes result() const {
    std::string bytes(result_ == nullptr ? 0 : result_->size(), '\0');
    if (result_ == nullptr) return py::bytes(bytes);
    const OnDevice current(device_);
    raise_if_failed(cuda_copy(bytes.data(), result_->at<void>(), bytes.size(), nullptr));
    raise_if_failed(cuda_wait(nullptr));
    return py::bytes(bytes);
  }

 private:
  int device_;
  std::function<Status()> queue_;
  Shared result_;
};

Work copy_work(Address to, Address from, std::size_t size, int device) {
  return {device, [=] { return cuda_copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size, nullptr); }};
}

Work diff_work(const std::vector<std::tuple<Address, Address, std::uint64_t, unsigned>>& given, int device) {
  std::vector<DevicePair> pairs;
  for (const auto& [a, b, size, dtype] : given) {
    if (dtype >= kDtypeCount) refuse("dtype", "is unknown");
    pairs.push_back(
        {reinterpret_cast<std::uint8_t*>(a), reinterpret_cast<std::uint8_t*>(b), size, static_cast<Dtype>(dtype)});
  }
  const OnDevice current(device);
  const std::size_t count = pairs.size();
  const Shared list = copied(pairs, device);
  const Shared workspace = allocated(cuda_diff_workspace(count), device);
  const Shared out = allocated(count * sizeof(DeviceDiff), device);
  const auto queue = [=] {
    return cuda_diff(list->at<DevicePair>(), count, workspace->at<void>(), workspace->size(), out->at<DeviceDiff>(),
                     nullptr);
  };
  return {device, queue, out};
}

struct Spans {
  std::vector<DeviceSpan> list;
  std::uint64_t total = 0;
};

Spans spans_of(const std::vector<std::pair<Address, std::uint64_t>>& given) {
  Spans spans;
  for (const auto& [address, size] : given) {
    spans.list.push_back({reinterpret_cast<std::uint8_t*>(address), size});
    spans.total += size;
  }
  return spans;
}

Work blake3_work(const std::vector<std::pair<Address, std::uint64_t>>& given, int device) {
  const Spans spans = spans_of(given);
  const OnDevice current(device);
  const std::size_t count = spans.list.size();
  const std::uint64_t total = spans.total;
  const Shared list = copied(spans.list, device);
  const Shared workspace = allocated(cuda_blake3_workspace(count, total), device);
  const Shared out = allocated(count * kDigestBytes, device);
  const auto queue = [=] {
    return cuda_blake3(list->at<DeviceSpan>(), count, total, workspace->at<void>(), workspace->size(),
                       out->at<std::uint8_t>(), nullptr);
  };
  return {device, queue, out};
}

Work chunk_work(const std::vector<std::pair<Address, std::uint64_t>>& given, int device) {
  const Spans spans = spans_of(given);
  const OnDevice current(device);
  const std::size_t count = spans.list.size();
  const std::uint64_t total = spans.total;
  std::size_t places = 0;
  for (const DeviceSpan& span : spans.list) places += (span.size + kMinChunkBytes - 1) / kMinChunkBytes;
  const Shared list = copied(spans.list, device);
  const Shared workspace = allocated(cuda_chunk_workspace(count, total), device);
  const std::size_t numbers = count * sizeof(std::uint64_t);
  const Shared out = allocated(numbers + places * sizeof(std::uint64_t), device);
  const auto queue = [=] {
    return cuda_chunk(list->at<DeviceSpan>(), count, total, workspace->at<void>(), workspace->size(),
                      out->at<std::uint64_t>(numbers), out->at<std::uint64_t>(), nullptr);
  };
  return {device, queue, out};
}

// The frames of a payload of which `on_device` is a copy, behind those that are listed already.
void list_payload(const Buffer& payload, const std::uint8_t* on_device, Address base, Address out, std::size_t size,
                  std::vector<DeviceFrame>& frames) {
  const std::size_t first = frames.size();
  std::size_t found = 0;
  for (std::size_t room = size / kDefaultFrameSize + 1;; room *= 4) {
    frames.resize(first + room);
    const Status status = list_frames(payload.data(), payload.size(), on_device, reinterpret_cast<std::uint8_t*>(base),
                                      reinterpret_cast<std::uint8_t*>(out), size, frames.data() + first, room, &found);
    if (found == room && status.code == Code::invalid_argument) continue;
    raise_if_failed(status);
    frames.resize(first + found);
    return;
  }
}

Work decode_work(const py::list& payloads, const std::vector<Address>& bases, const std::vector<Address>& outs,
                 const std::vector<std::size_t>& sizes, int device) {
  if (payloads.size() != bases.size() || payloads.size() != outs.size() || payloads.size() != sizes.size()) {
    refuse("payloads", "there are not as many bases, outputs and sizes");
  }
  const OnDevice current(device);
  std::vector<Shared> kept;
  std::vector<DeviceFrame> frames;
  for (std::size_t n = 0; n < payloads.size(); ++n) {
    const Buffer payload(payloads[n], Buffer::Access::read, "payload");
    kept.push_back(allocated(payload.size(), device));
    raise_if_failed(cuda_copy(kept.back()->at<void>(), payload.data(), payload.size(), nullptr));
    raise_if_failed(cuda_wait(nullptr));
    list_payload(payload, kept.back()->at<std::uint8_t>(), bases[n], outs[n], sizes[n], frames);
  }
  std::size_t largest = 1;
  for (const DeviceFrame& frame : frames) {
    largest = std::max<std::size_t>(largest, frame.decoded_size / element_size(frame.dtype));
  }
  std::size_t least = 0;
  std::size_t best = 0;
  const std::size_t count = frames.size();
  raise_if_failed(cuda_decode_workspace(count, largest, &least, &best));
  const Shared list = copied(frames, device);
  const Shared workspace = allocated(best, device);
  const Shared out = allocated(sizeof(std::uint32_t), device);
  const auto queue = [=] {
    (void)kept.size();  // the payloads live as long as this
    return cuda_decode(list->at<DeviceFrame>(), count, largest, workspace->at<void>(), best, out->at<std::uint32_t>(),
                       nullptr);
  };
  return {device, queue, out};
}

// A stopwatch for what others queue on the default stream.
class Watch {
 public:
  explicit Watch(int device) : device_(device) {
    const OnDevice current(device);
    raise_if_failed(cuda_watch_open(&watch_));
  }
  ~Watch() { cuda_watch_close(watch_); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void start() const {
    const OnDevice current(device_);
    raise_if_failed(cuda_watch_start(watch_, nullptr));
  }
  [[nodiscard]] double stop() const {
    const OnDevice current(device_);
    double seconds = 0;
    raise_if_failed(cuda_watch_stop(watch_, nullptr, &seconds));
    return seconds;
  }

 private:
  void* watch_ = nullptr;
  int device_;
};

std::size_t pool_peak(int device, bool reset) {
  const OnDevice current(device);
  std::size_t bytes = 0;
  raise_if_failed(cuda_pool_peak(reset, &bytes));
  return bytes;
}

}  // namespace

void bind_cuda_work(py::module_& module) {
  py::class_<Work>(module, "CudaWork")
      .def("seconds", &Work::seconds, py::arg("rounds"), py::arg("restore"))
      .def("result", &Work::result);
  py::class_<Watch>(module, "CudaWatch")
      .def(py::init<int>(), py::arg("device"))
      .def("start", &Watch::start)
      .def("stop", &Watch::stop);
  module.def("cuda_pool_peak", &pool_peak, py::arg("device"), py::arg("reset"));
  module.def("cuda_work_copy", &copy_work, py::arg("to"), py::arg("source"), py::arg("size"), py::arg("device"));
  module.def("cuda_work_diff", &diff_work, py::arg("pairs"), py::arg("device"));
  module.def("cuda_work_blake3", &blake3_work, py::arg("spans"), py::arg("device"));
  module.def("cuda_work_chunk", &chunk_work, py::arg("spans"), py::arg("device"));
  module.def("cuda_work_decode", &decode_work, py::arg("payloads"), py::arg("bases"), py::arg("outs"), py::arg("sizes"),
             py::arg("device"));
}

}  // namespace textnlp_fast::bindings

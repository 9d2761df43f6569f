// Decoding frames on a device: two kernels, each of which takes the frames of its modes from one list.
#include <new>
#include <vector>

#include "cuda/decode_sparse.h"
#include "cuda/lanes.h"
#include "cuda/memory.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

using device::DecodeLanes;
using device::DecodeSparse;

// The queues' counters, at the start of the workspace.
constexpr std::size_t kCounterBytes = 16;

std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

}  // namespace

Status cuda_decode_workspace(std::size_t frames, std::size_t largest, std::size_t* least, std::size_t* best) noexcept {
  const std::size_t each = device::sparse_workspace(largest);
  std::size_t blocks = 0;
  const Status status = simt::resident_blocks<DecodeSparse>(sizeof(device::SparseShared), &blocks);
  if (!status.ok()) return status;
  *least = kCounterBytes + each;
  *best = kCounterBytes + each * (frames == 0 ? 1 : smaller(blocks, frames));
  return {};
}

Status cuda_decode(const DeviceFrame* frames_dev, std::size_t count, std::size_t largest, void* workspace_dev,
                   std::size_t workspace_size, std::uint32_t* first_bad_dev, void* stream) noexcept {
  const std::size_t each = device::sparse_workspace(largest);
  if (workspace_size < kCounterBytes + each || reinterpret_cast<std::uintptr_t>(workspace_dev) % 16 != 0) {
    return Status::failure(Code::invalid_argument, "the workspace is too small or not aligned to 16 bytes");
  }
  if (count >= kNoFrame) return Status::failure(Code::invalid_argument, "too many frames for one call");
  Status status = simt::fill(first_bad_dev, 0xff, sizeof *first_bad_dev, stream);
  if (status.ok()) status = simt::fill(workspace_dev, 0, kCounterBytes, stream);
  std::size_t lanes_blocks = 0;
  std::size_t sparse_blocks = 0;
  if (status.ok()) status = simt::resident_blocks<DecodeLanes>(sizeof(device::LanesShared), &lanes_blocks);
  if (status.ok()) status = simt::resident_blocks<DecodeSparse>(sizeof(device::SparseShared), &sparse_blocks);
  if (!status.ok()) return status;

  auto* const counters = static_cast<std::uint32_t*>(workspace_dev);
  const auto frames = static_cast<std::uint32_t>(count);
  const DecodeLanes lanes{frames_dev, frames, counters, {first_bad_dev}};
  status = simt::launch(lanes, smaller(lanes_blocks, count), sizeof(device::LanesShared), stream);
  if (!status.ok()) return status;
  const DecodeSparse sparse{frames_dev,   frames,
                            counters + 1, static_cast<std::uint8_t*>(workspace_dev) + kCounterBytes,
                            each,         {first_bad_dev}};
  const std::size_t room = (workspace_size - kCounterBytes) / each;
  return simt::launch(sparse, smaller(smaller(sparse_blocks, count), room), sizeof(device::SparseShared), stream);
}

namespace {

// The frames of all jobs, whose payloads lie one after the other on the device.
Status list_jobs(const DecodeJob* jobs, std::size_t count, const std::uint8_t* payloads_dev,
                 std::vector<DeviceFrame>& frames, std::vector<std::size_t>& owners, std::size_t* failed) {
  for (std::size_t n = 0; n < count; ++n) {
    const DecodeJob& job = jobs[n];
    *failed = n;
    if (job.base_dev != nullptr && job.base_dev != job.out_dev && job.base_dev < job.out_dev + job.size &&
        job.out_dev < job.base_dev + job.size) {
      return Status::failure(Code::invalid_argument, "the output overlaps the base without being it");
    }
    // As many as there can be of the frame size that writers take; hostile payloads get room by and by.
    std::size_t room = job.size / kDefaultFrameSize + 1;
    const std::size_t first = frames.size();
    for (;; room *= 4) {
      frames.resize(first + room);
      std::size_t found = 0;
      const Status status = list_frames(job.payload, job.payload_size, payloads_dev, job.base_dev, job.out_dev,
                                        job.size, frames.data() + first, room, &found);
      const bool full = found == room && status.code == Code::invalid_argument;
      if (!status.ok() && !full) return status;
      if (full) continue;
      frames.resize(first + found);
      owners.resize(first + found, n);
      break;
    }
    payloads_dev += job.payload_size;
  }
  *failed = count;
  return {};
}

std::size_t most_elements(const std::vector<DeviceFrame>& frames) {
  std::size_t most = 1;
  for (const DeviceFrame& frame : frames) {
    const std::size_t elements = frame.decoded_size / element_size(frame.dtype);
    most = elements > most ? elements : most;
  }
  return most;
}

Status decode_listed(const DecodeJob* jobs, std::size_t count, std::size_t bytes, void* stream, std::size_t* failed) {
  simt::DeviceMemory payloads(stream);
  Status status = payloads.allocate(bytes);
  if (!status.ok()) return status;
  std::vector<DeviceFrame> frames;
  std::vector<std::size_t> owners;
  status = list_jobs(jobs, count, payloads.data(), frames, owners, failed);
  if (!status.ok() || frames.empty()) return status;
  std::size_t at = 0;
  for (std::size_t n = 0; n < count && status.ok(); at += jobs[n++].payload_size) {
    if (jobs[n].payload_size == 0) continue;
    status = simt::to_device(payloads.data() + at, jobs[n].payload, jobs[n].payload_size, stream);
  }
  const std::size_t largest = most_elements(frames);
  std::size_t least = 0;
  std::size_t best = 0;
  if (status.ok()) status = cuda_decode_workspace(frames.size(), largest, &least, &best);
  // The list, the number of the first bad frame, and the workspace, each on a round address.
  constexpr std::size_t kRound = 256;
  const std::size_t list_bytes = (frames.size() * sizeof(DeviceFrame) + kRound - 1) / kRound * kRound;
  simt::DeviceMemory rest(stream);
  if (status.ok()) status = rest.allocate(list_bytes + kRound + best);
  if (!status.ok()) {
    (void)simt::wait(stream);  // copies out of the caller's memory may be under way
    return status;
  }
  auto* const frames_dev = reinterpret_cast<DeviceFrame*>(rest.data());
  auto* const first_bad_dev = reinterpret_cast<std::uint32_t*>(rest.data() + list_bytes);
  status = simt::to_device(frames_dev, frames.data(), frames.size() * sizeof(DeviceFrame), stream);
  if (status.ok()) {
    status =
        cuda_decode(frames_dev, frames.size(), largest, rest.data() + list_bytes + kRound, best, first_bad_dev, stream);
  }
  std::uint32_t first_bad = kNoFrame;
  if (status.ok()) status = simt::to_host(&first_bad, first_bad_dev, sizeof first_bad, stream);
  // Also after a failure: what was queued reads the payloads and the list.
  const Status waited = simt::wait(stream);
  if (!status.ok() || !waited.ok()) return status.ok() ? waited : status;
  if (first_bad == kNoFrame) return {};
  *failed = owners[first_bad];
  std::size_t before = 0;
  for (std::size_t n = 0; n < *failed; ++n) before += jobs[n].payload_size;
  const auto position = static_cast<std::uint64_t>(frames[first_bad].body_dev - payloads.data()) - before;
  return Status::failure(Code::corrupt, "the frame does not decode", position);
}

}  // namespace

Status cuda_decode_payloads(const DecodeJob* jobs, std::size_t count, void* stream, std::size_t* failed) noexcept {
  *failed = count;
  std::size_t bytes = 0;
  for (std::size_t n = 0; n < count; ++n) bytes += jobs[n].payload_size;
  try {
    return decode_listed(jobs, count, bytes, stream, failed);
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory to list the frames");
  }
}

}  // namespace textnlp_fast

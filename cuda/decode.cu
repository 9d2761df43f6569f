// Decoding frames on a device: two kernels, each of which takes the frames of its modes from one list.
#include "cuda/lanes.h"
#include "cuda/sparse.h"
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
  const DecodeSparse sparse{frames_dev,
                            frames,
                            counters + 1,
                            static_cast<std::uint8_t*>(workspace_dev) + kCounterBytes,
                            each,
                            {first_bad_dev}};
  const std::size_t room = (workspace_size - kCounterBytes) / each;
  return simt::launch(sparse, smaller(smaller(sparse_blocks, count), room), sizeof(device::SparseShared), stream);
}

}  // namespace textnlp_fast

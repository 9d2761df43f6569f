// Statistics of changes: many pairs of tensors in one go.
#include "codec/value_order.h"
#include "cuda/frames.h"
#include "cuda/memory.h"
#include "cuda/pieces.h"
#include "cuda/simt.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{64} << 10;
constexpr std::size_t kVectorBytes = 16;
constexpr std::size_t kCounterBytes = 16;

template <class U>
struct alignas(kVectorBytes) Vector {
  U elements[kVectorBytes / sizeof(U)];
};

// What a thread has seen. A piece has too few elements for `sum` of 64 bits to pass its end, but for those of 8 bytes.
struct Seen {
  std::uint64_t changed = 0;
  std::uint64_t most = 0;
  std::uint64_t sum = 0;
  std::uint64_t carry = 0;

  template <class U>
  TEXTNLP_FAST_DEVICE void look(U a, U b, ValueOrder order) {
    if (a == b) return;
    const std::uint64_t size = distance(a, b, order);
    ++changed;
    most = size > most ? size : most;
    sum += size;
    carry += sum < size ? 1 : 0;
  }

  TEXTNLP_FAST_DEVICE void join(const Seen& other) {
    changed += other.changed;
    most = other.most > most ? other.most : most;
    sum += other.sum;
    carry += other.carry + (sum < other.sum ? 1 : 0);
  }
};

template <class U>
TEXTNLP_FAST_DEVICE Seen look_at(const std::uint8_t* a, const std::uint8_t* b, std::size_t count, ValueOrder order) {
  constexpr std::size_t kEach = kVectorBytes / sizeof(U);
  Seen seen;
  const bool wide = device::aligned<Vector<U>>(a) && device::aligned<Vector<U>>(b);
  const std::size_t vectors = wide ? count / kEach : 0;
  for (std::size_t i = simt::thread(); i < vectors; i += simt::block_threads()) {
    const Vector<U> from = reinterpret_cast<const Vector<U>*>(a)[i];
    const Vector<U> to = reinterpret_cast<const Vector<U>*>(b)[i];
    for (unsigned k = 0; k < kEach; ++k) seen.look(from.elements[k], to.elements[k], order);
  }
  for (std::size_t i = vectors * kEach + simt::thread(); i < count; i += simt::block_threads()) {
    seen.look(device::load<U>(a, i), device::load<U>(b, i), order);
  }
  return seen;
}

struct Diff {
  static constexpr unsigned kThreads = 256;
  const DevicePair* pairs;
  std::size_t count;
  const std::uint64_t* before;  // pieces, by pair
  unsigned long long* next;     // 0 at the start
  DeviceDiff* out;              // zeros at the start

  TEXTNLP_FAST_DEVICE void operator()() const {
    std::uint64_t& taken = *reinterpret_cast<std::uint64_t*>(simt::shared());
    for (;;) {
      if (simt::thread() == 0) taken = simt::atomic_add(next, 1ull);
      simt::sync_block();
      const std::uint64_t piece = taken;
      simt::sync_block();
      if (piece >= before[count]) return;
      const std::size_t n = device::span_of(before, count, piece);
      const DevicePair pair = pairs[n];
      const std::size_t at = static_cast<std::size_t>(piece - before[n]) * kPieceBytes;
      const std::size_t bytes = pair.size - at < kPieceBytes ? pair.size - at : kPieceBytes;
      const ValueOrder order = order_of(pair.dtype);
      Seen seen;
      switch (element_size(pair.dtype)) {
        case 1: seen = look_at<std::uint8_t>(pair.a_dev + at, pair.b_dev + at, bytes, order); break;
        case 2: seen = look_at<std::uint16_t>(pair.a_dev + at, pair.b_dev + at, bytes / 2, order); break;
        case 4: seen = look_at<std::uint32_t>(pair.a_dev + at, pair.b_dev + at, bytes / 4, order); break;
        default: seen = look_at<std::uint64_t>(pair.a_dev + at, pair.b_dev + at, bytes / 8, order); break;
      }
      tell(seen, out[n]);
    }
  }

  TEXTNLP_FAST_DEVICE static void tell(Seen seen, DeviceDiff& to) {
    for (unsigned step = simt::kWarp / 2; step != 0; step /= 2) {
      const unsigned other = simt::lane() ^ step;
      seen.join({simt::shuffle(seen.changed, other), simt::shuffle(seen.most, other), simt::shuffle(seen.sum, other),
                 simt::shuffle(seen.carry, other)});
    }
    if (simt::lane() != 0 || seen.changed == 0) return;
    simt::atomic_add(&to.changed, static_cast<unsigned long long>(seen.changed));
    simt::atomic_max(&to.max_ulp, static_cast<unsigned long long>(seen.most));
    const auto sum = static_cast<unsigned long long>(seen.sum);
    const unsigned long long had = simt::atomic_add(&to.sum_low, sum);
    const unsigned long long carry = static_cast<unsigned long long>(seen.carry) + (had + sum < had ? 1 : 0);
    if (carry != 0) simt::atomic_add(&to.sum_high, carry);
  }
};

}  // namespace

std::size_t cuda_diff_workspace(std::size_t count) noexcept {
  return kCounterBytes + (count + 1) * sizeof(std::uint64_t);
}

Status cuda_diff(const DevicePair* pairs_dev, std::size_t count, void* workspace_dev, std::size_t workspace_size,
                 DeviceDiff* out_dev, void* stream) noexcept {
  if (workspace_size < cuda_diff_workspace(count) || reinterpret_cast<std::uintptr_t>(workspace_dev) % 16 != 0) {
    return Status::failure(Code::invalid_argument, "the workspace is too small or not aligned to 16 bytes");
  }
  if (count == 0) return {};
  auto* const next = static_cast<unsigned long long*>(workspace_dev);
  auto* const before = reinterpret_cast<std::uint64_t*>(static_cast<std::uint8_t*>(workspace_dev) + kCounterBytes);
  Status status = simt::fill(workspace_dev, 0, kCounterBytes, stream);
  if (status.ok()) status = simt::fill(out_dev, 0, count * sizeof *out_dev, stream);
  const device::CountPieces<DevicePair> pieces{pairs_dev, count, kPieceBytes, before};
  if (status.ok()) status = simt::launch(pieces, 1, 0, stream);
  std::size_t blocks = 0;
  if (status.ok()) status = simt::resident_blocks<Diff>(sizeof(std::uint64_t), &blocks);
  if (!status.ok()) return status;
  return simt::launch(Diff{pairs_dev, count, before, next, out_dev}, blocks, sizeof(std::uint64_t), stream);
}

Status cuda_diff_now(const DevicePair* pairs, std::size_t count, DeviceDiff* out, void* stream) noexcept {
  if (count == 0) return {};
  const std::size_t list = (count * sizeof(DevicePair) + 15) / 16 * 16;
  const std::size_t made = (count * sizeof(DeviceDiff) + 15) / 16 * 16;
  const std::size_t workspace = cuda_diff_workspace(count);
  simt::DeviceMemory memory(stream);
  Status status = memory.allocate(list + made + workspace);
  if (!status.ok()) return status;
  auto* const pairs_dev = reinterpret_cast<DevicePair*>(memory.data());
  auto* const out_dev = reinterpret_cast<DeviceDiff*>(memory.data() + list);
  status = simt::to_device(pairs_dev, pairs, count * sizeof(DevicePair), stream);
  if (status.ok()) status = cuda_diff(pairs_dev, count, memory.data() + list + made, workspace, out_dev, stream);
  if (status.ok()) status = simt::to_host(out, out_dev, count * sizeof(DeviceDiff), stream);
  const Status waited = simt::wait(stream);
  return status.ok() ? waited : status;
}

}  // namespace textnlp_fast

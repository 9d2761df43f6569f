// Encoding frames on a device: one kernel, whose blocks take frame after frame from one queue.
#include <new>
#include <vector>

#include "cuda/encode_planes.h"
#include "cuda/encode_sparse.h"
#include "cuda/memory.h"
#include "cuda/pieces.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

using device::EncodeShared;
using device::Encoding;
using device::kEncodeThreads;
using device::load;

// Whether any thread of the block votes for it.
TEXTNLP_FAST_DEVICE bool any_of_block(EncodeShared& shared, bool vote) {
  simt::sync_block();
  if (simt::thread() == 0) shared.flag = 0;
  simt::sync_block();
  if (vote) shared.flag = 1;
  simt::sync_block();
  return shared.flag != 0;
}

// Stops at the first stretch that differs.
TEXTNLP_FAST_DEVICE bool same_as_base(const Encoding& encoding) {
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  constexpr std::size_t kStretch = kWord * kEncodeThreads * 16;
  const bool wide = device::aligned<std::uint64_t>(encoding.target) && device::aligned<std::uint64_t>(encoding.base);
  for (std::size_t first = 0; first < encoding.size; first += kStretch) {
    const std::size_t end = first + kStretch < encoding.size ? first + kStretch : encoding.size;
    const std::size_t words = wide ? (end - first) / kWord : 0;
    bool differs = false;
    for (std::size_t i = simt::thread(); i < words; i += kEncodeThreads) {
      differs =
          differs || load<std::uint64_t>(encoding.target + first, i) != load<std::uint64_t>(encoding.base + first, i);
    }
    for (std::size_t i = first + words * kWord + simt::thread(); i < end; i += kEncodeThreads) {
      differs = differs || encoding.target[i] != encoding.base[i];
    }
    if (any_of_block(encoding.shared, differs)) return false;
  }
  return true;
}

// Whether a frame's elements may be more alike as bytes: words of packed numbers, and floats whose lowest bytes stay.
TEXTNLP_FAST_DEVICE bool may_be_bytes(const Encoding& encoding, Dtype dtype) {
  const std::size_t element = element_size(dtype);
  if (element == 1) return false;
  if (exponent_bits(dtype) == 0) return true;
  if (encoding.base == nullptr || element <= 2) return false;
  const std::size_t count = encoding.size / element;
  const std::size_t every = lowest_byte_stride(count);
  bool moved = false;
  for (std::size_t i = simt::thread() * every; i < count; i += kEncodeThreads * every) {
    moved = moved || encoding.target[i * element] != encoding.base[i * element];
  }
  return !any_of_block(encoding.shared, moved);
}

template <class U>
TEXTNLP_FAST_DEVICE void encode_as(const Encoding& encoding, FrameMode mode, Dtype under, std::size_t limit) {
  if (mode == FrameMode::sparse) {
    device::encode_sparse<U>(encoding, under, limit);
  } else if (mode == FrameMode::delta) {
    device::encode_delta<U>(encoding, under, limit);
  } else {
    device::encode_planes<U>(encoding, under, mode == FrameMode::difference, limit);
  }
}

// Tries a code; says whether it is the shortest so far.
TEXTNLP_FAST_DEVICE bool weigh(const Encoding& encoding, FrameMode mode, Dtype under) {
  EncodeShared& shared = encoding.shared;
  const auto limit = static_cast<std::size_t>(shared.best);
  switch (element_size(under)) {
    case 1: encode_as<std::uint8_t>(encoding, mode, under, limit); break;
    case 2: encode_as<std::uint16_t>(encoding, mode, under, limit); break;
    case 4: encode_as<std::uint32_t>(encoding, mode, under, limit); break;
    default: encode_as<std::uint64_t>(encoding, mode, under, limit); break;
  }
  simt::sync_block();
  const bool shorter = shared.result != 0;
  simt::sync_block();
  if (shorter && simt::thread() == 0) {
    shared.best = shared.result;
    shared.mode = mode == FrameMode::sparse && shared.learned ? FrameMode::learned : mode;
    shared.dtype = under;
    shared.which ^= 1;
  }
  simt::sync_block();
  return shorter;
}

TEXTNLP_FAST_DEVICE void weigh_against(const Encoding& encoding, Dtype under) {
  const bool sparse = weigh(encoding, FrameMode::sparse, under);
  if (has_difference(under) && !rarely_changed(encoding.shared.best, encoding.size)) {
    (void)weigh(encoding, FrameMode::difference, under);
  }
  if (sparse && encoding.size > kSmallTensor * element_size(under)) return;
  (void)weigh(encoding, FrameMode::delta, under);
}

// Chooses the code of a frame; what it takes is in `shared` then.
TEXTNLP_FAST_DEVICE void choose_code(const Encoding& encoding, Dtype dtype) {
  EncodeShared& shared = encoding.shared;
  const bool same = encoding.base != nullptr && same_as_base(encoding);
  if (simt::thread() == 0) {
    const std::size_t shorter =
        frame_header_size(FrameMode::delta, encoding.size) - frame_header_size(FrameMode::raw, encoding.size);
    shared.mode = same ? FrameMode::same : FrameMode::raw;
    shared.dtype = dtype;
    // A frame must come out smaller than a raw one, whose header is shorter.
    shared.best = encoding.size - shorter;
    shared.which = 0;
  }
  simt::sync_block();
  if (same) return;
  const bool as_bytes = may_be_bytes(encoding, dtype);
  if (encoding.base != nullptr) {
    if (as_bytes) weigh_against(encoding, Dtype::u8);
    weigh_against(encoding, dtype);
  }
  if (clearly_delta(dtype, shared.best, encoding.size)) return;
  (void)weigh(encoding, FrameMode::planes, dtype);
  if (as_bytes) (void)weigh(encoding, FrameMode::planes, Dtype::u8);
}

struct EncodeFrames {
  static constexpr unsigned kThreads = kEncodeThreads;
  const EncodeTensor* tensors;
  std::size_t count;
  std::size_t frame_size;
  std::size_t largest;          // bytes of a frame
  const std::uint64_t* before;  // frames, by tensor
  unsigned long long* next;     // 0 at the start
  unsigned long long* ends;     // of frames in their payloads, and one more; 0 at the start
  std::uint8_t* rooms;
  std::size_t room_each;
  unsigned long long* sizes;  // of payloads; 0 at the start

  // Waits for the frames before to know where this one goes. These were taken before it, by blocks that run: it waits
  // for nothing that waits for it.
  TEXTNLP_FAST_DEVICE unsigned long long find_place(std::uint64_t frame, bool first, unsigned long long bytes) const {
    unsigned long long at = 0;
    if (!first) {
      while ((at = simt::atomic_add(&ends[frame - 1], 0ull)) == 0) {
      }
      --at;
    }
    simt::atomic_add(&ends[frame], at + bytes + 1);
    return at;
  }

  TEXTNLP_FAST_DEVICE void write(const Encoding& encoding, const EncodeTensor& tensor, std::size_t n,
                                 std::uint64_t frame) const {
    EncodeShared& shared = encoding.shared;
    const bool raw = shared.mode == FrameMode::raw;
    const std::size_t body = shared.mode == FrameMode::same ? 0
                             : raw                          ? encoding.size
                                                            : static_cast<std::size_t>(shared.best);
    const std::size_t header = frame_header_size(shared.mode, encoding.size);
    if (simt::thread() == 0) {
      Sink out(shared.header, sizeof shared.header);
      put_frame_header(out, shared.mode, shared.dtype, encoding.size, body);
      shared.at = find_place(frame, frame == before[n], header + body);
      if (frame + 1 == before[n + 1]) sizes[n] = shared.at + header + body;
    }
    simt::sync_block();
    const unsigned long long at = shared.at;
    if (at + header + body > tensor.capacity) return;
    if (simt::thread() < header) tensor.out_dev[at + simt::thread()] = shared.header[simt::thread()];
    device::copy_shifted(raw ? encoding.target : encoding.room.bodies[shared.which], tensor.out_dev + at + header, body,
                         simt::thread(), kEncodeThreads);
  }

  TEXTNLP_FAST_DEVICE void operator()() const {
    EncodeShared& shared = *reinterpret_cast<EncodeShared*>(simt::shared());
    const device::EncodeRoom room = device::room_at(rooms + simt::block() * room_each, largest);
    for (;;) {
      if (simt::thread() == 0) shared.number = simt::atomic_add(next, 1ull);
      simt::sync_block();
      const std::uint64_t frame = shared.number;
      if (frame >= before[count]) return;
      const std::size_t n = device::span_of(before, count, frame);
      const EncodeTensor tensor = tensors[n];
      const std::size_t from = static_cast<std::size_t>(frame - before[n]) * frame_size;
      const std::size_t left = static_cast<std::size_t>(tensor.size) - from;
      const Encoding encoding{tensor.target_dev + from, tensor.base_dev == nullptr ? nullptr : tensor.base_dev + from,
                              left < frame_size ? left : frame_size, shared, room};
      choose_code(encoding, tensor.dtype);
      write(encoding, tensor, n, frame);
      simt::sync_block();
    }
  }
};

constexpr std::size_t kCounterBytes = 64;
static_assert(sizeof(EncodeShared) <= std::size_t{48} << 10, "more shared memory has to be asked for");

std::size_t lists_bytes(std::size_t count, std::size_t frames) {
  return kCounterBytes + device::rounded((count + 1) * sizeof(std::uint64_t)) +
         device::rounded((frames + 1) * sizeof(unsigned long long));
}

bool wrong_frame_size(std::size_t frame_size) {
  return frame_size == 0 || frame_size % 64 != 0 || frame_size > kMaxFrameSize;
}

constexpr const char* kWrongFrameSize = "the frame size must be a multiple of 64 and at most 16 MiB";

}  // namespace

Status cuda_encode_workspace(std::size_t count, std::size_t frames, std::size_t largest, std::size_t* least,
                             std::size_t* best) noexcept {
  const std::size_t each = device::RoomSizes(largest).sum();
  std::size_t blocks = 0;
  const Status status = simt::resident_blocks<EncodeFrames>(sizeof(EncodeShared), &blocks);
  if (!status.ok()) return status;
  *least = lists_bytes(count, frames) + each;
  *best = lists_bytes(count, frames) + each * (frames == 0 ? 1 : frames < blocks ? frames : blocks);
  return {};
}

Status cuda_encode(const EncodeTensor* tensors_dev, std::size_t count, std::size_t frames, std::size_t frame_size,
                   std::size_t largest, void* workspace_dev, std::size_t workspace_size, unsigned long long* sizes_dev,
                   void* stream) noexcept {
  if (wrong_frame_size(frame_size)) return Status::failure(Code::invalid_argument, kWrongFrameSize);
  const std::size_t each = device::RoomSizes(largest).sum();
  const std::size_t lists = lists_bytes(count, frames);
  if (workspace_size < lists + each || reinterpret_cast<std::uintptr_t>(workspace_dev) % 64 != 0) {
    return Status::failure(Code::invalid_argument, "the workspace is too small or not aligned to 64 bytes");
  }
  if (count == 0) return {};
  auto* const start = static_cast<std::uint8_t*>(workspace_dev);
  auto* const next = reinterpret_cast<unsigned long long*>(start);
  auto* const before = reinterpret_cast<std::uint64_t*>(start + kCounterBytes);
  auto* const ends = reinterpret_cast<unsigned long long*>(start + kCounterBytes +
                                                           device::rounded((count + 1) * sizeof(std::uint64_t)));
  Status status = simt::fill(workspace_dev, 0, lists, stream);
  if (status.ok()) status = simt::fill(sizes_dev, 0, count * sizeof *sizes_dev, stream);
  if (status.ok()) {
    status = simt::launch(device::CountPieces<EncodeTensor>{tensors_dev, count, frame_size, before}, 1, 0, stream);
  }
  std::size_t blocks = 0;
  if (status.ok()) status = simt::resident_blocks<EncodeFrames>(sizeof(EncodeShared), &blocks);
  if (!status.ok()) return status;
  const std::size_t rooms = (workspace_size - lists) / each;
  blocks = blocks < rooms ? blocks : rooms;
  blocks = blocks < frames ? blocks : frames;
  const EncodeFrames kernel{tensors_dev, count, frame_size,    largest, before,
                            next,        ends,  start + lists, each,    sizes_dev};
  return simt::launch(kernel, blocks, sizeof(EncodeShared), stream);
}

namespace {

// Device memory for payloads that go to the host is asked for in pieces of at most so much.
constexpr std::size_t kMostStaged = std::size_t{512} << 20;
constexpr std::size_t kRound = 256;

std::size_t frames_of(std::size_t size, std::size_t frame_size) { return (size + frame_size - 1) / frame_size; }

std::size_t round_up(std::size_t bytes) { return (bytes + kRound - 1) / kRound * kRound; }

bool overlap(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size) {
  const auto first = reinterpret_cast<std::uintptr_t>(a);
  const auto second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_size && second < first + a_size;
}

Status check(const EncodeJob& job, std::size_t frame_size) {
  if (wrong_frame_size(frame_size)) return Status::failure(Code::invalid_argument, kWrongFrameSize);
  const std::size_t element = element_size(job.dtype);
  if (element == 0) return Status::failure(Code::invalid_argument, "unknown element type");
  if (job.size % element != 0) {
    return Status::failure(Code::invalid_argument, "the size in bytes is not a multiple of the element size");
  }
  if (job.capacity < encode_bound(job.size, frame_size)) {
    return Status::failure(Code::invalid_argument, "the output is smaller than encode_bound()");
  }
  const bool overlaps = overlap(job.out, job.capacity, job.target_dev, job.size) ||
                        (job.base_dev != nullptr && overlap(job.out, job.capacity, job.base_dev, job.size));
  if (job.out_on_device && overlaps) {
    return Status::failure(Code::invalid_argument, "the output overlaps the input");
  }
  return {};
}

// A stretch of a job, whole frames: the payloads of a tensor's stretches, one after the other, are its payload.
struct Stretch {
  std::size_t job;
  std::size_t from;
  std::size_t size;
};

// The next stretches, from `*job` and `*from` on, whose payloads fit the room for those of the host.
std::vector<Stretch> next_stretches(const EncodeJob* jobs, std::size_t count, std::size_t frame_size, std::size_t* job,
                                    std::size_t* from) {
  std::vector<Stretch> found;
  const std::size_t most = kMostStaged / frame_size;  // frames
  std::size_t staged = 0;
  while (*job < count) {
    const std::size_t left = jobs[*job].size - *from;
    std::size_t size = left;
    if (!jobs[*job].out_on_device) {
      if (staged == most) break;
      const std::size_t room = most - staged;
      size = frames_of(left, frame_size) > room ? room * frame_size : left;
      staged += frames_of(size, frame_size);
    }
    if (size != 0) found.push_back({*job, *from, size});
    if (size == left) {
      ++*job;
      *from = 0;
    } else {
      *from += size;
    }
  }
  return found;
}

// As much workspace as there is room for, from the best down to the least.
Status allocate_workspace(simt::DeviceMemory& memory, std::size_t least, std::size_t best, std::size_t* size) {
  for (*size = best;; *size = device::larger(least, *size / 2)) {
    const Status status = memory.allocate(*size);
    if (status.code != Code::out_of_memory || *size == least) return status;
  }
}

Status encode_stretches(const EncodeJob* jobs, const std::vector<Stretch>& stretches, std::size_t frame_size,
                        std::size_t* written, void* stream) {
  std::size_t staged = 0;
  std::size_t frames = 0;
  std::size_t largest = 1;
  for (const Stretch& stretch : stretches) {
    if (!jobs[stretch.job].out_on_device) staged += encode_bound(stretch.size, frame_size);
    frames += frames_of(stretch.size, frame_size);
    const std::size_t frame = stretch.size < frame_size ? stretch.size : frame_size;
    largest = frame > largest ? frame : largest;
  }
  const std::size_t count = stretches.size();
  const std::size_t list = round_up(count * sizeof(EncodeTensor));
  const std::size_t sizes = round_up(count * sizeof(unsigned long long));
  std::size_t least = 0;
  std::size_t best = 0;
  Status status = cuda_encode_workspace(count, frames, largest, &least, &best);
  simt::DeviceMemory memory(stream);
  if (status.ok()) status = memory.allocate(list + sizes + staged);
  simt::DeviceMemory workspace(stream);
  std::size_t workspace_size = 0;
  if (status.ok()) status = allocate_workspace(workspace, least, best, &workspace_size);
  if (!status.ok()) return status;
  auto* const sizes_dev = reinterpret_cast<unsigned long long*>(memory.data() + list);
  std::vector<EncodeTensor> tensors;
  std::vector<unsigned long long> found(count);
  std::uint8_t* to = memory.data() + list + sizes;
  for (const Stretch& stretch : stretches) {
    const EncodeJob& job = jobs[stretch.job];
    const std::size_t bound = encode_bound(stretch.size, frame_size);
    tensors.push_back({job.target_dev + stretch.from, job.base_dev == nullptr ? nullptr : job.base_dev + stretch.from,
                       job.out_on_device ? job.out : to, stretch.size, bound, job.dtype});
    if (!job.out_on_device) to += bound;
  }
  status = simt::to_device(memory.data(), tensors.data(), count * sizeof(EncodeTensor), stream);
  if (status.ok()) {
    status = cuda_encode(reinterpret_cast<const EncodeTensor*>(memory.data()), count, frames, frame_size, largest,
                         workspace.data(), workspace_size, sizes_dev, stream);
  }
  if (status.ok()) status = simt::to_host(found.data(), sizes_dev, count * sizeof found[0], stream);
  Status waited = simt::wait(stream);
  for (std::size_t n = 0; n < count && status.ok() && waited.ok(); ++n) {
    const EncodeJob& job = jobs[stretches[n].job];
    if (found[n] > tensors[n].capacity) return Status::failure(Code::internal, "a payload passed its bound");
    std::size_t& at = written[stretches[n].job];
    if (!job.out_on_device) status = simt::to_host(job.out + at, tensors[n].out_dev, found[n], stream);
    at += found[n];
  }
  if (waited.ok()) waited = simt::wait(stream);
  return status.ok() ? waited : status;
}

}  // namespace

Status cuda_encode_payloads(const EncodeJob* jobs, std::size_t count, std::size_t frame_size, std::size_t* written,
                            void* stream, std::size_t* failed) noexcept {
  for (std::size_t n = 0; n < count; ++n) {
    written[n] = 0;
    *failed = n;
    const Status status = check(jobs[n], frame_size);
    if (!status.ok()) return status;
  }
  *failed = count;
  try {
    std::size_t job = 0;
    std::size_t from = 0;
    while (job < count) {
      const std::vector<Stretch> stretches = next_stretches(jobs, count, frame_size, &job, &from);
      if (stretches.empty()) continue;
      const Status status = encode_stretches(jobs, stretches, frame_size, written, stream);
      if (!status.ok()) return status;
    }
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory to list the tensors");
  }
  return {};
}

}  // namespace textnlp_fast

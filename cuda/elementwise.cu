// XOR and the difference in ULPs, element by element.
#include "codec/ordered.h"
#include "cuda/simt.h"
#include "textnlp_fast/cuda.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kVectorBytes = 16;

// What is computed from an element of each input. `left` is the target, or for `Apply` the base.
struct Xor {
  template <class Bits>
  TEXTNLP_FAST_DEVICE static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(left ^ right);
  }
};
struct UlpDifference {
  template <class Bits>
  TEXTNLP_FAST_DEVICE static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(to_ordered(left) - to_ordered(right));
  }
};
struct UlpApply {
  template <class Bits>
  TEXTNLP_FAST_DEVICE static Bits of(Bits left, Bits right) {
    return from_ordered(static_cast<Bits>(to_ordered(left) + right));
  }
};
struct Subtract {
  template <class Bits>
  TEXTNLP_FAST_DEVICE static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(left - right);
  }
};
struct Add {
  template <class Bits>
  TEXTNLP_FAST_DEVICE static Bits of(Bits left, Bits right) {
    return static_cast<Bits>(left + right);
  }
};

template <class Bits>
struct alignas(kVectorBytes) Vector {
  Bits elements[kVectorBytes / sizeof(Bits)];
};

// Elements [0, vectors * kVectorBytes / sizeof(Bits)) sixteen bytes a thread, the rest one by one. Inputs are not
// __restrict__: the output may be one of them, and each thread reads its elements before it writes them.
template <class Operation, class Bits>
struct Elementwise {
  static constexpr unsigned kThreads = 256;
  const Bits* left;
  const Bits* right;
  Bits* out;
  std::size_t count;
  std::size_t vectors;

  TEXTNLP_FAST_DEVICE void operator()() const {
    constexpr auto kElements = static_cast<unsigned>(kVectorBytes / sizeof(Bits));
    const std::size_t step = std::size_t{simt::blocks()} * simt::block_threads();
    const std::size_t first = std::size_t{simt::block()} * simt::block_threads() + simt::thread();
    for (std::size_t i = first; i < vectors; i += step) {
      const Vector<Bits> a = reinterpret_cast<const Vector<Bits>*>(left)[i];
      const Vector<Bits> b = reinterpret_cast<const Vector<Bits>*>(right)[i];
      Vector<Bits> result;
      for (unsigned k = 0; k < kElements; ++k) {
        result.elements[k] = Operation::template of<Bits>(a.elements[k], b.elements[k]);
      }
      reinterpret_cast<Vector<Bits>*>(out)[i] = result;
    }
    for (std::size_t i = vectors * kElements + first; i < count; i += step) {
      out[i] = Operation::template of<Bits>(left[i], right[i]);
    }
  }
};

bool aligned(const void* pointer, std::size_t bytes) noexcept {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

template <class Operation, class Bits>
Status launch(const void* left, const void* right, void* out, std::size_t count, void* stream) noexcept {
  if (count == 0) return {};
  if (left == nullptr || right == nullptr || out == nullptr) {
    return Status::failure(Code::invalid_argument, "a null device pointer");
  }
  if (!aligned(left, sizeof(Bits)) || !aligned(right, sizeof(Bits)) || !aligned(out, sizeof(Bits))) {
    return Status::failure(Code::invalid_argument, "a device pointer is not aligned to its element size");
  }
  const bool wide = aligned(left, kVectorBytes) && aligned(right, kVectorBytes) && aligned(out, kVectorBytes);
  const std::size_t vectors = wide ? count / (kVectorBytes / sizeof(Bits)) : 0;
  const std::size_t work = vectors != 0 ? vectors : count;
  // Enough blocks to fill any device several times over; each thread then strides.
  constexpr std::size_t kMaxBlocks = 1 << 15;
  using Kernel = Elementwise<Operation, Bits>;
  const std::size_t blocks = (work + Kernel::kThreads - 1) / Kernel::kThreads;
  const Kernel kernel{static_cast<const Bits*>(left), static_cast<const Bits*>(right), static_cast<Bits*>(out), count,
                      vectors};
  return simt::launch(kernel, blocks < kMaxBlocks ? blocks : kMaxBlocks, 0, stream);
}

template <class Operation>
Status launch_for_width(const void* left, const void* right, void* out, std::size_t count, std::size_t width,
                        void* stream) noexcept {
  switch (width) {
    case 1: return launch<Operation, std::uint8_t>(left, right, out, count, stream);
    case 2: return launch<Operation, std::uint16_t>(left, right, out, count, stream);
    case 4: return launch<Operation, std::uint32_t>(left, right, out, count, stream);
    case 8: return launch<Operation, std::uint64_t>(left, right, out, count, stream);
    default: return Status::failure(Code::invalid_argument, "not a dtype");
  }
}

}  // namespace

Status cuda_xor(const void* target_dev, const void* base_dev, void* out_dev, std::size_t size_bytes,
                void* stream) noexcept {
  return launch<Xor, std::uint8_t>(target_dev, base_dev, out_dev, size_bytes, stream);
}

Status cuda_ulp_difference(const void* target_dev, const void* base_dev, void* out_dev, std::size_t count, Dtype dtype,
                           void* stream) noexcept {
  const std::size_t width = element_size(dtype);
  if (exponent_bits(dtype) == 0) {
    return launch_for_width<Subtract>(target_dev, base_dev, out_dev, count, width, stream);
  }
  return launch_for_width<UlpDifference>(target_dev, base_dev, out_dev, count, width, stream);
}

Status cuda_ulp_apply(const void* base_dev, const void* difference_dev, void* out_dev, std::size_t count, Dtype dtype,
                      void* stream) noexcept {
  const std::size_t width = element_size(dtype);
  if (exponent_bits(dtype) == 0) {
    return launch_for_width<Add>(base_dev, difference_dev, out_dev, count, width, stream);
  }
  return launch_for_width<UlpApply>(base_dev, difference_dev, out_dev, count, width, stream);
}

}  // namespace textnlp_fast

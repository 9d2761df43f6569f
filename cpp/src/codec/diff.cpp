// Statistics of a change, element by element.
#include <new>
#include <vector>

#include "codec/ordered.h"
#include "cpu/kernels.h"
#include "textnlp_fast/codec.h"
#include "thread/parallel.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

// Bits in the order of the values they stand for.
enum class Order { as_is, sign_magnitude, twos_complement };

Order order_of(Dtype dtype) {
  if (exponent_bits(dtype) != 0) return Order::sign_magnitude;
  const bool is_signed = dtype == Dtype::i8 || dtype == Dtype::i16 || dtype == Dtype::i32 || dtype == Dtype::i64;
  return is_signed ? Order::twos_complement : Order::as_is;
}

template <class U>
U place(U bits, Order order) {
  if (order == Order::sign_magnitude) return to_ordered(bits);
  return order == Order::twos_complement ? static_cast<U>(bits ^ (U{1} << (sizeof(U) * 8 - 1))) : bits;
}

template <class U>
void diff_piece(const std::uint8_t* a, const std::uint8_t* b, std::size_t count, Order order, DiffStats& stats) {
  U most = 0;
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    U from;
    U to;
    __builtin_memcpy(&from, a + i * sizeof(U), sizeof(U));
    __builtin_memcpy(&to, b + i * sizeof(U), sizeof(U));
    if (from == to) continue;
    const U x = place(from, order);
    const U y = place(to, order);
    const U size = static_cast<U>(x > y ? x - y : y - x);
    ++stats.changed;
    most = size > most ? size : most;
    sum += static_cast<double>(size);
  }
  stats.max_ulp = most;
  stats.sum_ulp = sum;
}

}  // namespace

Status diff(Dtype dtype, const std::uint8_t* a, const std::uint8_t* b, std::size_t size, unsigned threads,
            DiffStats* stats) noexcept {
  const std::size_t element = element_size(dtype);
  *stats = {};
  if (element == 0 || size % element != 0) {
    return Status::failure(Code::invalid_argument, "the size in bytes is not a multiple of the element size");
  }
  const Order order = order_of(dtype);
  const std::size_t pieces = (size + kPieceBytes - 1) / kPieceBytes;
  try {
    std::vector<DiffStats> parts(pieces);
    parallel_for(pieces, threads, [&](std::size_t index) {
      const std::size_t at = index * kPieceBytes;
      const std::size_t count = (size - at < kPieceBytes ? size - at : kPieceBytes) / element;
      switch (element) {
        case 1: return diff_piece<std::uint8_t>(a + at, b + at, count, order, parts[index]);
        case 2: return diff_piece<std::uint16_t>(a + at, b + at, count, order, parts[index]);
        case 4: return diff_piece<std::uint32_t>(a + at, b + at, count, order, parts[index]);
        default: return diff_piece<std::uint64_t>(a + at, b + at, count, order, parts[index]);
      }
    });
    for (const DiffStats& part : parts) {
      stats->changed += part.changed;
      stats->max_ulp = part.max_ulp > stats->max_ulp ? part.max_ulp : stats->max_ulp;
      stats->sum_ulp += part.sum_ulp;
    }
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory to compare");
  }
  stats->elements = size / element;
  return {};
}

}  // namespace textnlp_fast

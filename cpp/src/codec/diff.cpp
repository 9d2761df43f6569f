// Statistics of a change, element by element.
#include <new>
#include <type_traits>
#include <vector>

#include "codec/value_order.h"
#include "cpu/kernels.h"
#include "textnlp_fast/codec.h"
#include "thread/parallel.h"

namespace textnlp_fast {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

// In integers, so that the sum does not depend on the order of pieces.
struct Piece {
  std::uint64_t changed = 0;
  std::uint64_t most = 0;
  unsigned __int128 sum = 0;
};

template <class U>
Piece diff_piece(const std::uint8_t* a, const std::uint8_t* b, std::size_t count, ValueOrder order) {
  // A piece has too few elements of up to four bytes for their sum to pass 64 bits.
  using Sum = std::conditional_t<sizeof(U) == 8, unsigned __int128, std::uint64_t>;
  U most = 0;
  Sum sum = 0;
  std::uint64_t changed = 0;
  for (std::size_t i = 0; i < count; ++i) {
    U from;
    U to;
    __builtin_memcpy(&from, a + i * sizeof(U), sizeof(U));
    __builtin_memcpy(&to, b + i * sizeof(U), sizeof(U));
    const U size = distance(from, to, order);
    changed += size != 0 ? 1 : 0;
    most = size > most ? size : most;
    sum += size;
  }
  return {changed, most, sum};
}

}  // namespace

Status diff(Dtype dtype, const std::uint8_t* a, const std::uint8_t* b, std::size_t size, unsigned threads,
            DiffStats* stats) noexcept {
  const std::size_t element = element_size(dtype);
  *stats = {};
  if (element == 0 || size % element != 0) {
    return Status::failure(Code::invalid_argument, "the size in bytes is not a multiple of the element size");
  }
  const ValueOrder order = order_of(dtype);
  const std::size_t pieces = (size + kPieceBytes - 1) / kPieceBytes;
  try {
    std::vector<Piece> parts(pieces);
    parallel_for(pieces, threads, [&](std::size_t index) {
      const std::size_t at = index * kPieceBytes;
      const std::size_t count = (size - at < kPieceBytes ? size - at : kPieceBytes) / element;
      switch (element) {
        case 1: parts[index] = diff_piece<std::uint8_t>(a + at, b + at, count, order); return;
        case 2: parts[index] = diff_piece<std::uint16_t>(a + at, b + at, count, order); return;
        case 4: parts[index] = diff_piece<std::uint32_t>(a + at, b + at, count, order); return;
        default: parts[index] = diff_piece<std::uint64_t>(a + at, b + at, count, order); return;
      }
    });
    unsigned __int128 sum = 0;
    for (const Piece& part : parts) {
      stats->changed += part.changed;
      stats->max_ulp = part.most > stats->max_ulp ? part.most : stats->max_ulp;
      sum += part.sum;
    }
    stats->sum_ulp = static_cast<double>(sum);
  } catch (const std::bad_alloc&) {
    return Status::failure(Code::out_of_memory, "no memory to compare");
  }
  stats->elements = size / element;
  return {};
}

}  // namespace textnlp_fast

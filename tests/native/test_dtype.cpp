// Element types: the numbers are part of the frame format, so they are pinned here one by one.
#include <cstdint>

#include "check.h"
#include "textnlp_fast/dtype.h"
#include "textnlp_fast/status.h"

using namespace textnlp_fast;
using namespace textnlp_fast::testing;

namespace {

struct Expected {
  Dtype dtype;
  unsigned number;
  unsigned size_bytes;
  unsigned exponent;
};

constexpr Expected kExpected[] = {
    {Dtype::opaque, 0, 1, 0},  {Dtype::boolean, 1, 1, 0}, {Dtype::u8, 2, 1, 0},   {Dtype::i8, 3, 1, 0},
    {Dtype::f8_e4m3, 4, 1, 4}, {Dtype::f8_e5m2, 5, 1, 5}, {Dtype::u16, 6, 2, 0},  {Dtype::i16, 7, 2, 0},
    {Dtype::f16, 8, 2, 5},     {Dtype::bf16, 9, 2, 8},    {Dtype::u32, 10, 4, 0}, {Dtype::i32, 11, 4, 0},
    {Dtype::f32, 12, 4, 8},    {Dtype::u64, 13, 8, 0},    {Dtype::i64, 14, 8, 0}, {Dtype::f64, 15, 8, 11},
};
static_assert(sizeof kExpected / sizeof kExpected[0] == kDtypeCount);

}  // namespace

int main() {
  for (const Expected& row : kExpected) {
    CHECK(static_cast<unsigned>(row.dtype) == row.number);
    CHECK(element_size(row.dtype) == row.size_bytes);
    CHECK(exponent_bits(row.dtype) == row.exponent);
  }
  // A number off the wire that is no dtype has no size: callers use that to refuse it.
  for (unsigned number = kDtypeCount; number < 256; ++number) {
    CHECK(element_size(static_cast<Dtype>(number)) == 0);
    CHECK(exponent_bits(static_cast<Dtype>(number)) == 0);
  }
  constexpr Status failure = Status::failure(Code::corrupt, "torn", 7);
  CHECK(!failure.ok() && failure.position == 7);
  CHECK(Status{}.ok());
  return finish();
}

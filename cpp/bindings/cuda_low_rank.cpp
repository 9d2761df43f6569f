// Low-rank prediction of arrays on a device, from factors in host memory.
#include "bindings.h"
#include "textnlp_fast/cuda.h"
#include "textnlp_fast/low_rank.h"

namespace textnlp_fast::bindings {
namespace {

void cuda_low_rank_into(const py::object& base, const py::object& out, unsigned dtype, const py::object& a,
                        unsigned a_dtype, const py::object& b, unsigned b_dtype, std::size_t rows, std::size_t columns,
                        std::size_t rank, float scale, unsigned rounding, std::size_t begin, std::uintptr_t stream) {
  const DeviceBuffer to(out, Buffer::Access::write, "out", stream);
  const DeviceBuffer from(base, Buffer::Access::read, "base", stream);
  if (from.device() != to.device()) refuse("base", "lies on another device than out");
  const Buffer left(b, Buffer::Access::read, "b");
  const Buffer right(a, Buffer::Access::read, "a");
  if (dtype >= kDtypeCount || a_dtype >= kDtypeCount || b_dtype >= kDtypeCount) refuse("dtype", "is unknown");
  if (rounding > 2) refuse("rounding", "is unknown");
  const LowRank recipe = {static_cast<Dtype>(dtype),
                          rows,
                          columns,
                          rank,
                          static_cast<Dtype>(a_dtype),
                          static_cast<Dtype>(b_dtype),
                          right.data(),
                          right.size(),
                          left.data(),
                          left.size(),
                          scale,
                          static_cast<MergeRounding>(rounding)};
  const std::size_t element = element_size(recipe.dtype);
  if (from.size() != to.size() || from.size() % element != 0) {
    refuse("base", "needs the same whole number of elements as out");
  }
  if (from.data() != to.data() && from.data() < to.data() + to.size() && to.data() < from.data() + from.size()) {
    refuse("out", "overlaps the base without being it");
  }
  const OnDevice current(to.device());
  Status status;
  {
    const py::gil_scoped_release release;
    status = cuda_apply_low_rank_now(recipe, from.data(), begin, from.size() / element, to.data(),
                                     reinterpret_cast<void*>(stream));
  }
  raise_if_failed(status);
}

}  // namespace

void bind_cuda_low_rank(py::module_& module) {
  module.def("cuda_low_rank_into", &cuda_low_rank_into, py::arg("base"), py::arg("out"), py::arg("dtype"), py::arg("a"),
             py::arg("a_dtype"), py::arg("b"), py::arg("b_dtype"), py::arg("rows"), py::arg("columns"), py::arg("rank"),
             py::arg("scale"), py::arg("rounding"), py::arg("begin"), py::arg("stream"));
}

}  // namespace textnlp_fast::bindings

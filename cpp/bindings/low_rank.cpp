#include "textnlp_fast/low_rank.h"

#include "bindings.h"

namespace textnlp_fast::bindings {
namespace {

void low_rank_into(const py::object& base, const py::object& out, unsigned dtype, const py::object& a, unsigned a_dtype,
                   const py::object& b, unsigned b_dtype, std::size_t rows, std::size_t columns, std::size_t rank,
                   float scale, unsigned rounding, std::size_t begin, unsigned threads) {
  const Buffer from(base, Buffer::Access::read, "base");
  const Buffer to(out, Buffer::Access::write, "out");
  const Buffer left(b, Buffer::Access::read, "b");
  const Buffer right(a, Buffer::Access::read, "a");
  if (rounding > 2) raise_if_failed(Status::failure(Code::invalid_argument, "unknown rounding of a low-rank recipe"));
  const LowRank recipe = {dtype_of(dtype),
                          rows,
                          columns,
                          rank,
                          dtype_of(a_dtype),
                          dtype_of(b_dtype),
                          right.data(),
                          right.size(),
                          left.data(),
                          left.size(),
                          scale,
                          static_cast<MergeRounding>(rounding)};
  const std::size_t element = element_size(recipe.dtype);
  if (from.size() != to.size() || from.size() % element != 0) {
    raise_if_failed(Status::failure(Code::invalid_argument, "base and out hold the same whole number of elements"));
  }
  Status status;
  {
    const py::gil_scoped_release released;
    status = apply_low_rank(recipe, from.data(), begin, from.size() / element, to.mutable_data(), threads);
  }
  raise_if_failed(status);
}

}  // namespace

void bind_low_rank(py::module_& module) {
  module.def("low_rank_into", &low_rank_into, py::arg("base"), py::arg("out"), py::arg("dtype"), py::arg("a"),
             py::arg("a_dtype"), py::arg("b"), py::arg("b_dtype"), py::arg("rows"), py::arg("columns"), py::arg("rank"),
             py::arg("scale"), py::arg("rounding"), py::arg("begin"), py::arg("threads"));
}

}  // namespace textnlp_fast::bindings

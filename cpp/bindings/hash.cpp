#include "bindings.h"

namespace textnlp_fast::bindings {

void bind_hash(py::module_& /*module*/) {}

}  // namespace textnlp_fast::bindings

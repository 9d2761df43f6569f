#include "bindings.h"

namespace textnlp_fast::bindings {

void bind_codec(py::module_& /*module*/) {}

}  // namespace textnlp_fast::bindings

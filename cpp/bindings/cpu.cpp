#include "textnlp_fast/cpu.h"

#include <string>
#include <vector>

#include "bindings.h"

namespace textnlp_fast::bindings {

void bind_cpu(py::module_& module) {
  module.def("isa_name", &isa_name);
  module.def("isa_warning", &isa_warning);
  module.def("default_threads", &default_threads);
  module.def("available_isas", [] {
    const char* names[8];
    const unsigned count = available_isas(names, 8);
    py::list list;
    for (unsigned index = 0; index < count && index < 8; ++index) list.append(names[index]);
    return list;
  });
  module.def(
      "force_isa", [](const std::string& name) { return force_isa(name.c_str()); }, py::arg("name"));
}

}  // namespace textnlp_fast::bindings

#include <string>

#include "bindings.h"

namespace textnlp_fast::bindings {
namespace {

const char* error_class(Code code) {
  switch (code) {
    case Code::invalid_argument: return "InvalidInputError";
    case Code::corrupt:
    case Code::truncated: return "CorruptDataError";
    case Code::unsupported: return "UnsupportedFormatError";
    case Code::device_error: return "DeviceError";
    default: return "InternalError";
  }
}

}  // namespace

void raise_if_failed(const Status& status) {
  if (status.ok()) return;
  if (status.code == Code::out_of_memory) {
    PyErr_SetString(PyExc_MemoryError, status.message);
    throw py::error_already_set();
  }
  const py::object error = py::module_::import("textnlp_fast.errors").attr(error_class(status.code));
  std::string message = status.message;
  const bool placed =
      status.code == Code::corrupt || status.code == Code::truncated || status.code == Code::unsupported;
  if (placed) message += " (at byte " + std::to_string(status.position) + ")";
  py::object instance = error(message);
  if (placed) instance.attr("position") = status.position;
  PyErr_SetObject(error.ptr(), instance.ptr());
  throw py::error_already_set();
}

}  // namespace textnlp_fast::bindings

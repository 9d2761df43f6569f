#include "textnlp_fast/hash.h"

#include <pybind11/numpy.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"

namespace textnlp_fast::bindings {

Digest to_key(const py::handle& object) {
  const Buffer buffer(object, Buffer::Access::read, "key");
  Digest key{};
  if (buffer.size() != key.size()) {
    raise_if_failed(Status::failure(Code::invalid_argument, "key must be 32 bytes long; hash a longer secret first"));
  }
  std::memcpy(key.data(), buffer.data(), key.size());
  return key;
}

std::vector<std::uint64_t> to_ends(const py::handle& object) {
  const Buffer buffer(object, Buffer::Access::read, "ends");
  if (buffer.size() % sizeof(std::uint64_t) != 0) {
    raise_if_failed(Status::failure(Code::invalid_argument, "ends must be an array of unsigned 64-bit integers"));
  }
  std::vector<std::uint64_t> ends(buffer.size() / sizeof(std::uint64_t));
  if (!ends.empty()) std::memcpy(ends.data(), buffer.data(), buffer.size());
  return ends;
}

namespace {

// Below this, giving up the GIL and taking it again costs more than the hash.
constexpr std::size_t kReleaseBytes = 8192;

py::bytes to_bytes(const Digest& digest) {
  return py::bytes(reinterpret_cast<const char*>(digest.data()), digest.size());
}

py::bytes blake3_once(const py::handle& data, const py::object& key, unsigned threads) {
  const Buffer buffer(data, Buffer::Access::read, "data");
  std::optional<Digest> secret;
  if (!key.is_none()) secret = to_key(key);
  auto run = [&] {
    return secret ? blake3_keyed(*secret, buffer.data(), buffer.size(), threads)
                  : blake3(buffer.data(), buffer.size(), threads);
  };
  if (buffer.size() < kReleaseBytes) return to_bytes(run());
  Digest digest;
  {
    const py::gil_scoped_release release;
    digest = run();
  }
  return to_bytes(digest);
}

// Guards a C++ object that Python threads may share. The GIL is given up before the lock is waited for, never the other
// way round, so the two cannot wait for each other.
template <class State>
struct Guarded {
  State state;
  std::mutex mutex;

  explicit Guarded(State initial) : state(std::move(initial)) {}

  template <class Body>
  auto locked(std::size_t size_bytes, const Body& body) {
    if (size_bytes < kReleaseBytes) {
      const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
      if (lock.owns_lock()) return body(state);
    }
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex);
    return body(state);
  }
};

using GuardedBlake3 = Guarded<Blake3>;
using GuardedPiece = Guarded<Blake3Piece>;
using GuardedXet = Guarded<XetHasher>;

using Digests = py::array_t<std::uint8_t>;

Digests spans(const py::handle& data, const py::handle& ends, const py::object& key, unsigned threads) {
  const Buffer buffer(data, Buffer::Access::read, "data");
  const std::vector<std::uint64_t> offsets = to_ends(ends);
  std::optional<Digest> secret;
  if (!key.is_none()) secret = to_key(key);
  Digests result({static_cast<py::ssize_t>(offsets.size()), static_cast<py::ssize_t>(kDigestBytes)});
  auto* const out = reinterpret_cast<Digest*>(result.mutable_data());
  Status status;
  {
    const py::gil_scoped_release release;
    status =
        secret ? blake3_keyed_spans(*secret, buffer.data(), buffer.size(), offsets.data(), offsets.size(), out, threads)
               : blake3_spans(buffer.data(), buffer.size(), offsets.data(), offsets.size(), out, threads);
  }
  raise_if_failed(status);
  return result;
}

py::bytes chunk_values(const py::handle& data, std::uint64_t first) {
  const Buffer buffer(data, Buffer::Access::read, "data");
  if (buffer.size() % 1024 != 0) {
    raise_if_failed(Status::failure(Code::invalid_argument, "data must be whole chunks of 1024 bytes"));
  }
  std::string values(buffer.size() / 1024 * kDigestBytes, '\0');
  blake3_chunk_values(buffer.data(), buffer.size() / 1024, first, reinterpret_cast<std::uint8_t*>(values.data()));
  return py::bytes(values);
}

py::bytes join(const py::handle& values, std::uint64_t size_bytes, std::uint64_t piece_bytes) {
  const Buffer buffer(values, Buffer::Access::read, "values");
  if (buffer.size() % kDigestBytes != 0) refuse("values", "needs 32 bytes for each value");
  Digest digest{};
  raise_if_failed(blake3_join(reinterpret_cast<const Digest*>(buffer.data()), buffer.size() / kDigestBytes, size_bytes,
                              piece_bytes, &digest));
  return to_bytes(digest);
}

void bind_pieces(py::module_& module) {
  module.def("blake3_join", &join, py::arg("values"), py::arg("size_bytes"), py::arg("piece_bytes"));
  py::class_<GuardedPiece>(module, "Blake3Piece")
      .def(py::init([](std::uint64_t first_chunk) { return std::make_unique<GuardedPiece>(Blake3Piece(first_chunk)); }),
           py::arg("first_chunk"))
      .def(
          "update",
          [](GuardedPiece& self, const py::handle& data, unsigned threads) {
            const Buffer buffer(data, Buffer::Access::read, "data");
            self.locked(buffer.size(),
                        [&](Blake3Piece& state) { state.update(buffer.data(), buffer.size(), threads); });
          },
          py::arg("data"), py::arg("threads"))
      .def("values", [](GuardedPiece& self) {
        const std::vector<Digest> values = self.locked(0, [](const Blake3Piece& state) { return state.values(); });
        return py::bytes(reinterpret_cast<const char*>(values.data()), values.size() * kDigestBytes);
      });
}

void bind_blake3(py::module_& module) {
  module.def("blake3", &blake3_once, py::arg("data"), py::arg("key"), py::arg("threads"));
  module.def("blake3_spans", &spans, py::arg("data"), py::arg("ends"), py::arg("key"), py::arg("threads"));
  module.def("blake3_chunk_values", &chunk_values, py::arg("data"), py::arg("first"));
  py::class_<GuardedBlake3>(module, "Blake3Hasher")
      .def(py::init([](const py::object& key, const py::object& context) {
             if (!context.is_none()) {
               return std::make_unique<GuardedBlake3>(Blake3::derive_key(context.cast<std::string>()));
             }
             return std::make_unique<GuardedBlake3>(key.is_none() ? Blake3() : Blake3(to_key(key)));
           }),
           py::arg("key"), py::arg("context"))
      .def(
          "update",
          [](GuardedBlake3& self, const py::handle& data, unsigned threads) {
            const Buffer buffer(data, Buffer::Access::read, "data");
            self.locked(buffer.size(), [&](Blake3& state) { state.update(buffer.data(), buffer.size(), threads); });
          },
          py::arg("data"), py::arg("threads"))
      .def("digest",
           [](GuardedBlake3& self) { return to_bytes(self.locked(0, [](const Blake3& s) { return s.digest(); })); })
      .def("copy", [](GuardedBlake3& self) {
        return std::make_unique<GuardedBlake3>(self.locked(0, [](const Blake3& state) { return state; }));
      });
}

void bind_xet(py::module_& module) {
  module.attr("xet_chunk_key") = to_bytes(XetHasher::chunk_key());
  py::class_<GuardedXet>(module, "XetHasher")
      .def(py::init([] { return std::make_unique<GuardedXet>(XetHasher()); }))
      .def(
          "add",
          [](GuardedXet& self, const py::handle& data, const py::handle& ends, unsigned threads) {
            const Buffer buffer(data, Buffer::Access::read, "data");
            const std::vector<std::uint64_t> offsets = to_ends(ends);
            raise_if_failed(self.locked(buffer.size(), [&](XetHasher& state) {
              return state.add(buffer.data(), buffer.size(), offsets.data(), offsets.size(), threads);
            }));
          },
          py::arg("data"), py::arg("ends"), py::arg("threads"))
      .def(
          "add_hashed",
          [](GuardedXet& self, const py::handle& hashes, const py::handle& ends) {
            const Buffer buffer(hashes, Buffer::Access::read, "hashes");
            const std::vector<std::uint64_t> offsets = to_ends(ends);
            if (buffer.size() != offsets.size() * kDigestBytes) refuse("hashes", "needs 32 bytes for each of the ends");
            const auto* const digests = reinterpret_cast<const Digest*>(buffer.data());
            raise_if_failed(self.locked(buffer.size(), [&](XetHasher& state) {
              return state.add_hashed(digests, offsets.data(), offsets.size());
            }));
          },
          py::arg("hashes"), py::arg("ends"))
      .def(
          "take",
          [](GuardedXet& self, const py::handle& data, bool last, unsigned threads) {
            const Buffer buffer(data, Buffer::Access::read, "data");
            std::size_t taken = 0;
            raise_if_failed(self.locked(buffer.size(), [&](XetHasher& state) {
              return state.take(buffer.data(), buffer.size(), last, threads, &taken);
            }));
            return taken;
          },
          py::arg("data"), py::arg("last"), py::arg("threads"))
      .def("hexdigest", [](GuardedXet& self) {
        char text[64];
        xet_hex(self.locked(kReleaseBytes, [](const XetHasher& state) { return state.digest(); }), text);
        return std::string(text, sizeof text);
      });
}

}  // namespace

void bind_hash(py::module_& module) {
  bind_blake3(module);
  bind_pieces(module);
  bind_xet(module);
}

}  // namespace textnlp_fast::bindings

// The elements of a sparse frame that are told: the listed ones in order, then the cold ones that changed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/codec_kernels.h"
#include "codec/delta_model.h"
#include "codec/pair_rans.h"

namespace textnlp_fast {

struct Listed {
  std::vector<std::uint8_t> base;
  std::vector<std::uint8_t> target;
  std::vector<std::uint16_t> in_block;  // how many are listed in each block
  std::vector<std::uint16_t> places;    // in the block, of those in blocks of few
  std::vector<std::uint32_t> masks;     // lanes of each row, in blocks of many
  std::vector<std::uint32_t> events;    // places of the cold ones, in the frame
  std::size_t count = 0;                // of listed elements
  std::size_t few = 0;                  // of `places`

  void prepare(std::size_t elements, unsigned element_bytes);
  [[nodiscard]] std::size_t total() const { return count + events.size(); }
};

// Tells the places and collects the elements. `changed`: lanes of each row.
void find_places(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* target,
                 const std::uint8_t* base, std::size_t count, const SparseRule& rule, const std::uint32_t* changed,
                 Listed& listed, PairWriter& out);

// Collects their bases, and copies the base to `out` on the way, if that is another place. False if the places are not
// valid.
bool read_places(const CodecKernels& kernel, unsigned element_bytes, const std::uint8_t* base, std::size_t count,
                 const SparseRule& rule, PairReader& in, Listed& listed, std::uint8_t* out);

// Puts the targets where they belong.
void place_targets(const CodecKernels& kernel, unsigned element_bytes, const Listed& listed, std::size_t count,
                   std::uint8_t* out);

// The elements one by one, under the tables of a delta frame.
void put_values(PairWriter& out, unsigned element_bytes, const DeltaRule& rule, const DeltaEncodeTables& tables,
                const Listed& listed);
void take_values(PairReader& in, unsigned element_bytes, const DeltaDecoder& decoder, Listed& listed);

}  // namespace textnlp_fast

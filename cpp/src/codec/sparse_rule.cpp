#include "codec/sparse_rule.h"

#include <cstring>

#include "codec/codec_scalar.h"
#include "codec/sparse_choice.h"

namespace textnlp_fast {
namespace {

template <class U>
std::size_t count_unequal(const std::uint8_t* target, const std::uint8_t* base, std::size_t count) {
  std::size_t changed = 0;
  for (std::size_t i = 0; i < count; ++i) changed += scalar::load<U>(target, i) != scalar::load<U>(base, i) ? 1 : 0;
  return changed;
}

std::size_t count_changed(const std::uint8_t* target, const std::uint8_t* base, std::size_t count,
                          unsigned element_bytes) {
  switch (element_bytes) {
    case 1: return count_unequal<std::uint8_t>(target, base, count);
    case 2: return count_unequal<std::uint16_t>(target, base, count);
    case 4: return count_unequal<std::uint32_t>(target, base, count);
    default: return count_unequal<std::uint64_t>(target, base, count);
  }
}

// Blocks that are looked at lie apart, where no prefetcher of the hardware expects them. What will be read of one for
// certain is asked for so many of them ahead.
constexpr std::size_t kGlanceAhead = 2;
constexpr std::size_t kSurelyRead = 128;  // bytes, from the first on

// A hint: what it names need not be there.
void ask_for(const std::uint8_t* data, std::size_t size) {
  for (std::size_t at = 0; at < size; at += 64) __builtin_prefetch(data + at);
}

}  // namespace

std::uint64_t most_changed(const std::uint8_t* target, const std::uint8_t* base, std::size_t size,
                           unsigned element_bytes) {
  const std::size_t count = size / element_bytes;
  if (count <= kSmallTensor) return count;
  const std::size_t block = kBlockElements * element_bytes;
  const std::size_t part = kPartElements * element_bytes;
  std::size_t looked = 0;
  std::size_t stayed = 0;
  std::size_t changed = 0;
  for (std::size_t at = 0; at + block <= size; at += block * kBlockStride, ++looked) {
    const std::size_t ahead = at + kGlanceAhead * kBlockStride * block;
    const std::size_t counted = ahead + (looked + kGlanceAhead) % kGlanceParts * part;
    for (const std::uint8_t* const side : {target, base}) {
      ask_for(side + ahead, kSurelyRead);
      ask_for(side + counted, part);
    }
    if (std::memcmp(target + at, base + at, block) == 0) {
      ++stayed;
    } else {
      const std::size_t from = at + looked % kGlanceParts * part;
      changed += count_changed(target + from, base + from, kPartElements, element_bytes);
    }
  }
  return choice::most_changed(count, looked, stayed, changed);
}

void choose_split(const SparseSurvey& survey, DeltaRule& rule, Split& split) {
  choice::choose_split(survey, rule, split);
}

bool has_hazards(const SparseRule& rule) { return choice::has_hazards(rule); }

void write_split(Sink& out, const DeltaRule& rule, const Split& split) { choice::put_split(out, rule, split); }

}  // namespace textnlp_fast

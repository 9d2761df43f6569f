// Code for elements of any size, written once.
#pragma once
#include <cstdint>

namespace textnlp_fast {

// Calls `action` with a zero of the unsigned type of that size.
template <class Action>
void by_size(unsigned element_bytes, const Action& action) {
  switch (element_bytes) {
    case 1: return action(std::uint8_t{0});
    case 2: return action(std::uint16_t{0});
    case 4: return action(std::uint32_t{0});
    default: return action(std::uint64_t{0});
  }
}

}  // namespace textnlp_fast

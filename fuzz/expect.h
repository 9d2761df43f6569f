// What a harness asserts. A broken promise ends the program, so that libFuzzer keeps the input.
#pragma once
#include <cstdio>
#include <cstdlib>

#define EXPECT(...)                                                                  \
  do {                                                                               \
    if (!(__VA_ARGS__)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #__VA_ARGS__); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)

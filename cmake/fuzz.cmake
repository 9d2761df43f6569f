# libFuzzer harnesses: one program a file of fuzz/, named fuzz_<file>.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "TEXTNLP_FAST_FUZZ needs clang: configure with -DCMAKE_CXX_COMPILER=clang++-14")
endif()

# The core is instrumented for coverage, without libFuzzer's main.
target_compile_options(textnlp_fast_core PRIVATE -fsanitize=fuzzer-no-link)

file(GLOB harnesses CONFIGURE_DEPENDS fuzz/*.cpp)
foreach(source IN LISTS harnesses)
  get_filename_component(name ${source} NAME_WE)
  add_executable(fuzz_${name} ${source})
  target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  # cpp/src too: the chunk harness states the definition again, on the core's own constants.
  target_include_directories(fuzz_${name} PRIVATE cpp/src)
  target_link_libraries(fuzz_${name} PRIVATE textnlp_fast_core)
endforeach()

# seed_<harness> FOLDER writes the inputs that a harness starts from, in today's format.
file(GLOB seed_writers CONFIGURE_DEPENDS fuzz/seeds/*.cpp)
foreach(source IN LISTS seed_writers)
  get_filename_component(name ${source} NAME_WE)
  add_executable(seed_${name} ${source})
  target_link_libraries(seed_${name} PRIVATE textnlp_fast_core)
endforeach()

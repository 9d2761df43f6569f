# The native tests: one program a file of tests/native, each run once per instruction set by the program itself, so the
# same `ctest` serves the sanitizer build and an emulator (CMAKE_CROSSCOMPILING_EMULATOR).
enable_testing()

file(GLOB native_tests CONFIGURE_DEPENDS tests/native/test_*.cpp)
foreach(source IN LISTS native_tests)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  # cpp/src too: a few internals (the thread loop, the dispatch table) are tested below the public interface.
  target_include_directories(${name} PRIVATE cpp/src)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wshadow)
  target_link_libraries(${name} PRIVATE textnlp_fast_core)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300)
endforeach()

# The kernels and launches of the CUDA twins, on the emulator. One emulator inside another would take minutes, and what
# is tested is the same for all processors.
if(CMAKE_CROSSCOMPILING)
  return()
endif()
textnlp_fast_add_emulated(textnlp_fast_emulated)
target_include_directories(textnlp_fast_emulated PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} cpp/src)
target_link_libraries(textnlp_fast_emulated PUBLIC textnlp_fast_core)

file(GLOB twin_tests CONFIGURE_DEPENDS tests/native/cuda/test_*.cpp)
foreach(source IN LISTS twin_tests)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name}_emulated ${source})
  target_include_directories(${name}_emulated PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} cpp/src tests/native)
  target_compile_options(${name}_emulated PRIVATE -Wall -Wextra -Wshadow)
  target_link_libraries(${name}_emulated PRIVATE textnlp_fast_emulated)
  add_test(NAME ${name}_emulated COMMAND ${name}_emulated)
  set_tests_properties(${name}_emulated PROPERTIES TIMEOUT 300)
endforeach()

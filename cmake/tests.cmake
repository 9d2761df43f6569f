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

# The CUDA twins as a static library, textnlp_fast_cuda. TEXTNLP_FAST_CUDA=AUTO builds them when nvcc is found; without
# them the library holds stand-ins that say so. EMULATED compiles the very same files as C++ for the emulator
# (cuda/emulator.h): a device that every machine has, for tests. The runtime is linked statically and loads the driver itself, so that
# what is built here imports on machines without one.
set(TEXTNLP_FAST_HAS_CUDA FALSE)
if(NOT TEXTNLP_FAST_CUDA MATCHES "^(OFF|EMULATED)$")
  # Set before the language is enabled: CMake would otherwise choose one architecture and test the compiler with it.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100-real 120-real 120-virtual)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(TEXTNLP_FAST_HAS_CUDA TRUE)
  elseif(TEXTNLP_FAST_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TEXTNLP_FAST_CUDA=ON, but no CUDA compiler was found: put nvcc on the PATH or set CUDACXX.")
  endif()
endif()

# The twins for the emulator, as library `target`.
function(textnlp_fast_add_emulated target)
  file(GLOB twins CONFIGURE_DEPENDS cuda/*.cu)
  list(FILTER twins EXCLUDE REGEX "/info\\.cu$")
  set(sources cuda/emulator.cpp cuda/emulated_info.cpp)
  foreach(source IN LISTS twins)
    get_filename_component(name ${source} NAME_WE)
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/emulated/${name}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n")
    list(APPEND sources ${wrapper})
  endforeach()
  add_library(${target} STATIC ${sources})
  # Products and sums stay apart, as nvcc is told too.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -ffp-contract=off)
endfunction()

if(TEXTNLP_FAST_HAS_CUDA)
  file(GLOB cuda_sources CONFIGURE_DEPENDS cuda/*.cu)
  add_library(textnlp_fast_cuda STATIC ${cuda_sources})
  # CMake up to 3.25 does not know how to ask nvcc 13 for C++20.
  set_target_properties(textnlp_fast_cuda PROPERTIES
    CUDA_STANDARD 17
    CUDA_STANDARD_REQUIRED ON
    CUDA_RUNTIME_LIBRARY Static
    CUDA_VISIBILITY_PRESET hidden
    POSITION_INDEPENDENT_CODE ON)
  target_compile_options(textnlp_fast_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size --threads=2
    --expt-relaxed-constexpr --fmad=false>)
elseif(TEXTNLP_FAST_CUDA STREQUAL "EMULATED")
  textnlp_fast_add_emulated(textnlp_fast_cuda)
else()
  add_library(textnlp_fast_cuda STATIC cuda/absent.cpp)
  if(TEXTNLP_FAST_CUDA STREQUAL "OFF")
    target_compile_definitions(textnlp_fast_cuda PRIVATE TEXTNLP_FAST_CUDA_SWITCHED_OFF)
  endif()
endif()
add_library(textnlp_fast::cuda ALIAS textnlp_fast_cuda)
set_target_properties(textnlp_fast_cuda PROPERTIES EXPORT_NAME cuda)
target_include_directories(textnlp_fast_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} cpp/src)
target_link_libraries(textnlp_fast_cuda PUBLIC textnlp_fast_core)

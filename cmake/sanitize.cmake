# Sanitizers, on the core and on everything that links it. A finding ends the program: a report that scrolls by and
# exits 0 would pass a test run. Reports name lines (-g1); all that a debugger could ask takes a third of the time again.
if(TEXTNLP_FAST_FUZZ AND NOT TEXTNLP_FAST_SANITIZE)
  set(TEXTNLP_FAST_SANITIZE address,undefined)
endif()
if(TEXTNLP_FAST_SANITIZE)
  target_compile_options(textnlp_fast_core PUBLIC
    -fsanitize=${TEXTNLP_FAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  target_link_options(textnlp_fast_core PUBLIC -fsanitize=${TEXTNLP_FAST_SANITIZE})
  # Kernels are a few long functions, in which checks in place take a compiler minutes. Those for addresses are calls
  # there, and those for undefined behaviour trap without a word: which line that was, a debugger says.
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    set(brief -mllvm -asan-instrumentation-with-call-threshold=0)
    if(TEXTNLP_FAST_SANITIZE MATCHES "undefined")
      list(APPEND brief -fsanitize-trap=undefined)
    endif()
  else()
    set(brief --param asan-instrumentation-with-call-threshold=0)
  endif()
  foreach(isa IN LISTS isas)
    foreach(concept IN LISTS concepts)
      set_property(SOURCE cpp/src/${concept}/${concept}_${isa}.cpp APPEND PROPERTY COMPILE_OPTIONS ${brief})
    endforeach()
  endforeach()
endif()

# Sanitizers, on the core and on everything that links it. A finding ends the program: a report that scrolls by and
# exits 0 would pass a test run.
if(TEXTNLP_FAST_FUZZ AND NOT TEXTNLP_FAST_SANITIZE)
  set(TEXTNLP_FAST_SANITIZE address,undefined)
endif()
if(TEXTNLP_FAST_SANITIZE)
  target_compile_options(textnlp_fast_core PUBLIC
    -fsanitize=${TEXTNLP_FAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_link_options(textnlp_fast_core PUBLIC -fsanitize=${TEXTNLP_FAST_SANITIZE})
endif()

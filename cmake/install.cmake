# `cmake --install`: headers, the static library, and the package that find_package(textnlp_fast) finds.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/textnlp_fast)

# textnlp_fast::cuda answers cuda.h. Built with nvcc, it asks the program that links it to enable the CUDA language too.
install(TARGETS textnlp_fast_core textnlp_fast_cuda EXPORT textnlp_fast-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
install(DIRECTORY cpp/include/textnlp_fast DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp
  FILES_MATCHING PATTERN "*.h")
install(EXPORT textnlp_fast-targets NAMESPACE textnlp_fast:: DESTINATION ${package_dir} COMPONENT cpp)

configure_package_config_file(cmake/textnlp_fast-config.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/textnlp_fast-config.cmake INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/textnlp_fast-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/textnlp_fast-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/textnlp_fast-config-version.cmake
  DESTINATION ${package_dir} COMPONENT cpp)

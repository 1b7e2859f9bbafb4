# What C++ users find with find_package(torchext CONFIG COMPONENTS kernels): the static library, its
# headers under include/torchext/kernels, and include/torchext/version.h.
include(CMakePackageConfigHelpers)
set(config_dir lib/cmake/torchext)

configure_file(cmake/version.h.in ${CMAKE_BINARY_DIR}/include/torchext/version.h @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/include/torchext/version.h DESTINATION include/torchext COMPONENT kernels)
install(DIRECTORY csrc/kernels/ DESTINATION include/torchext/kernels COMPONENT kernels FILES_MATCHING PATTERN "*.h")

set_target_properties(torchext_kernels PROPERTIES EXPORT_NAME kernels)
install(TARGETS torchext_kernels EXPORT torchext_kernels ARCHIVE DESTINATION lib COMPONENT kernels)
if(TORCHEXT_HAS_CUDA)
  install(DIRECTORY cuda/kernels/ DESTINATION include/torchext/cuda COMPONENT kernels
          FILES_MATCHING PATTERN "*.cuh" PATTERN "*.h")
  set_target_properties(torchext_cuda_kernels PROPERTIES EXPORT_NAME cuda_kernels)
  install(TARGETS torchext_cuda_kernels EXPORT torchext_kernels ARCHIVE DESTINATION lib COMPONENT kernels)
endif()
install(EXPORT torchext_kernels NAMESPACE torchext:: FILE torchext-kernels.cmake DESTINATION ${config_dir}
        COMPONENT kernels)

configure_package_config_file(cmake/torchextConfig.cmake.in ${CMAKE_BINARY_DIR}/torchextConfig.cmake
                              INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/torchextConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/torchextConfig.cmake ${CMAKE_BINARY_DIR}/torchextConfigVersion.cmake
        DESTINATION ${config_dir} COMPONENT kernels)

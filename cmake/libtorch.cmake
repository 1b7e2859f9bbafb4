# torchext_torch: the optimizers for C++ programs on libtorch. Torch's full ABI: such a library serves the
# torch that it was built with only.
find_package(OpenMP REQUIRED COMPONENTS CXX) # at::parallel_for is inline and runs on it
file(READ ${TORCH_DIR}/include/torch/headeronly/version.h torch_version_h)
string(REGEX MATCH "TORCH_VERSION_MAJOR ([0-9]+)" _ "${torch_version_h}")
set(TORCHEXT_LIBTORCH_VERSION "${CMAKE_MATCH_1}")
string(REGEX MATCH "TORCH_VERSION_MINOR ([0-9]+)" _ "${torch_version_h}")
string(APPEND TORCHEXT_LIBTORCH_VERSION ".${CMAKE_MATCH_1}")

add_library(torchext_libtorch INTERFACE)
target_include_directories(torchext_libtorch SYSTEM INTERFACE ${TORCH_DIR}/include
                                                              ${TORCH_DIR}/include/torch/csrc/api/include)
target_compile_options(torchext_libtorch INTERFACE "-ffile-prefix-map=${TORCH_DIR}/include/=")
target_link_libraries(torchext_libtorch INTERFACE ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so)

file(GLOB TORCHEXT_LIBTORCH_SOURCES CONFIGURE_DEPENDS csrc/libtorch/*.cpp)
add_library(torchext_torch STATIC ${TORCHEXT_LIBTORCH_SOURCES})
target_compile_features(torchext_torch PUBLIC cxx_std_20) # what torch's headers need from 2.13
target_include_directories(torchext_torch PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/csrc/libtorch/include>
                                                 $<INSTALL_INTERFACE:include>)
target_compile_options(torchext_torch PRIVATE ${native_flags})
# torch's headers cost ten seconds a file without.
target_precompile_headers(torchext_torch PRIVATE <torch/types.h> <torch/serialize/archive.h>
                                                 <torch/optim/optimizer.h>)
target_link_libraries(torchext_torch
  PRIVATE $<BUILD_INTERFACE:torchext_options> torchext_kernels OpenMP::OpenMP_CXX
  PUBLIC $<BUILD_INTERFACE:torchext_libtorch> $<INSTALL_INTERFACE:torchext::libtorch>)

install(DIRECTORY csrc/libtorch/include/torchext DESTINATION include COMPONENT torch)
set_target_properties(torchext_torch PROPERTIES EXPORT_NAME torch)
install(TARGETS torchext_torch EXPORT torchext_torch ARCHIVE DESTINATION lib COMPONENT torch)
install(EXPORT torchext_torch NAMESPACE torchext:: FILE torchext-torch.cmake DESTINATION ${config_dir}
        COMPONENT torch)
configure_file(cmake/torchextFindTorch.cmake.in ${CMAKE_BINARY_DIR}/torchextFindTorch.cmake @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/torchextFindTorch.cmake DESTINATION ${config_dir} COMPONENT torch)

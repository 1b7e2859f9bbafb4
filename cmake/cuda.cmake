# CUDA kernels: framework-free, compiled by nvcc. AUTO means: if nvcc is found. No GPU is ever probed.
include(CheckLanguage)
set(TORCHEXT_HAS_CUDA OFF)
file(GLOB_RECURSE TORCHEXT_CUDA_SOURCES CONFIGURE_DEPENDS cuda/kernels/*.cu)
if(NOT TORCHEXT_CUDA STREQUAL "OFF" AND TORCHEXT_CUDA_SOURCES)
  # TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX") as for torch's own extensions; 9.0 for development.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(arch_list 9.0)
    if(DEFINED ENV{TORCH_CUDA_ARCH_LIST})
      string(REPLACE " " ";" arch_list "$ENV{TORCH_CUDA_ARCH_LIST}")
    endif()
    foreach(arch IN LISTS arch_list)
      string(REGEX REPLACE "\\+PTX$" "" number "${arch}")
      string(REPLACE "." "" number "${number}")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${number}-real)
      if(arch MATCHES "\\+PTX$")
        list(APPEND CMAKE_CUDA_ARCHITECTURES ${number}-virtual)
      endif()
    endforeach()
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(TORCHEXT_HAS_CUDA ON)
  elseif(TORCHEXT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TORCHEXT_CUDA=ON but no nvcc was found: put it on PATH or set CUDACXX")
  endif()
endif()
message(STATUS "torchext: CUDA kernels ${TORCHEXT_HAS_CUDA}")

if(TORCHEXT_HAS_CUDA)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3") # checks like the C++ part: no NDEBUG difference between them
  add_library(torchext_cuda_kernels STATIC ${TORCHEXT_CUDA_SOURCES})
  set_target_properties(torchext_cuda_kernels PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
                                                         CUDA_EXTENSIONS OFF CUDA_RUNTIME_LIBRARY Static)
  target_include_directories(torchext_cuda_kernels
    PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/cuda> $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/csrc>
           $<INSTALL_INTERFACE:include> $<INSTALL_INTERFACE:include/torchext>)
  # fmad off: a kernel fuses only where its source says fmaf, as on the CPU.
  target_compile_options(torchext_cuda_kernels PRIVATE
    --fmad=false -t 0 --compress-mode=size -Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas,-fvisibility=hidden
    "-Xcompiler=-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")
  if(TORCHEXT_WERROR)
    target_compile_options(torchext_cuda_kernels PRIVATE -Werror=all-warnings -Xcompiler=-Werror)
  endif()
  target_link_libraries(torchext_cuda_kernels PUBLIC CUDA::cudart_static)
endif()

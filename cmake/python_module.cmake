# _C: op glue on torch's stable ABI.
# 2.11 -> 0x020b000000000000, the form the stable ABI headers expect
string(REPLACE "." ";" target_parts ${TORCHEXT_TORCH_TARGET})
list(GET target_parts 0 target_major)
list(GET target_parts 1 target_minor)
math(EXPR target_hex "(${target_major} << 56) | (${target_minor} << 48)" OUTPUT_FORMAT HEXADECIMAL)

add_library(torchext_stable INTERFACE)
target_include_directories(torchext_stable SYSTEM INTERFACE ${TORCH_DIR}/include
                                                            ${TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(torchext_stable INTERFACE TORCH_TARGET_VERSION=${target_hex} Py_LIMITED_API=0x030b0000)
target_compile_options(torchext_stable INTERFACE "-ffile-prefix-map=${TORCH_DIR}/include/=")
target_link_libraries(torchext_stable INTERFACE ${TORCH_DIR}/lib/libtorch.so ${TORCH_DIR}/lib/libtorch_cpu.so
                                                ${TORCH_DIR}/lib/libc10.so)

# module.cpp is all that knows Python, so the other objects serve both libraries.
file(GLOB TORCHEXT_OP_SOURCES CONFIGURE_DEPENDS csrc/ops/*.cpp)
list(FILTER TORCHEXT_OP_SOURCES EXCLUDE REGEX "/module\\.cpp$")
add_library(torchext_op_objects OBJECT ${TORCHEXT_OP_SOURCES})
set_target_properties(torchext_op_objects PROPERTIES CXX_STANDARD 20)
target_compile_options(torchext_op_objects PRIVATE ${native_flags})
target_link_libraries(torchext_op_objects PRIVATE torchext_options torchext_kernels torchext_stable)
Python_add_library(_C MODULE csrc/ops/module.cpp)
set_target_properties(_C PROPERTIES PREFIX "" SUFFIX ".abi3.so" CXX_STANDARD 20)
target_link_libraries(_C PRIVATE torchext_op_objects torchext_options torchext_kernels torchext_stable)

# libtorchext_ops: for C++ programs on libtorch; loading it registers the ops (docs/building.md).
if(TORCHEXT_OPS_LIB)
  add_library(torchext_ops SHARED)
  target_link_libraries(torchext_ops PRIVATE torchext_op_objects torchext_kernels torchext_stable)
  install(TARGETS torchext_ops LIBRARY DESTINATION lib COMPONENT ops)
endif()

# _C_cuda: the same for CUDA; g++ compiles it, nvcc saw only the kernels. A CPU build of torch has no use for it.
set(TORCHEXT_BUILT_CUDA "")
if(TORCHEXT_HAS_CUDA AND NOT torch_cuda STREQUAL "none")
  file(GLOB TORCHEXT_CUDA_OP_SOURCES CONFIGURE_DEPENDS cuda/ops/*.cpp)
  Python_add_library(_C_cuda MODULE ${TORCHEXT_CUDA_OP_SOURCES})
  set_target_properties(_C_cuda PROPERTIES PREFIX "" SUFFIX ".abi3.so" CXX_STANDARD 20)
  target_compile_definitions(_C_cuda PRIVATE USE_CUDA)
  target_link_libraries(_C_cuda PRIVATE torchext_options torchext_cuda_kernels torchext_kernels torchext_stable
                                        ${TORCH_DIR}/lib/libtorch_cuda.so ${TORCH_DIR}/lib/libc10_cuda.so)
  set(TORCHEXT_BUILT_CUDA "${CMAKE_CUDA_COMPILER_VERSION}")
  install(TARGETS _C_cuda LIBRARY DESTINATION . COMPONENT python)
endif()

configure_file(cmake/_build.py.in ${CMAKE_BINARY_DIR}/_build.py @ONLY)
# `make build` installs these next to the Python sources; setup.py installs them into the wheel.
install(TARGETS _C LIBRARY DESTINATION . COMPONENT python)
install(FILES ${CMAKE_BINARY_DIR}/_build.py DESTINATION . COMPONENT python)

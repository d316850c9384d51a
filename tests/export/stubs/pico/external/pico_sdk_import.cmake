# SPDX-License-Identifier: Apache-2.0
# The functions of the Pico SDK that an example calls; it becomes a program for the host, with a second export beside.
set(PICO_STUBS "${CMAKE_CURRENT_LIST_DIR}/..")

function(pico_sdk_init)
  add_library(pico_stdlib INTERFACE)
  target_include_directories(pico_stdlib INTERFACE "${PICO_STUBS}/include")
endfunction()

function(pico_enable_stdio_usb target enabled)
endfunction()

function(pico_enable_stdio_uart target enabled)
endfunction()

function(pico_add_extra_outputs target)
  add_subdirectory(${OTHER_EXPORT} other)
  target_sources(${target} PRIVATE "${PICO_STUBS}/../other_export.c")
  target_link_libraries(${target} mcuformer::gamma)
endfunction()

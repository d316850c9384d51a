# SPDX-License-Identifier: Apache-2.0
# The functions of Zephyr that a module and an application call; the application becomes a program for the host.
# KCONFIG: a folder with sdkconfig.cmake, which sets CONFIG_*; MORE_MODULES: folders beside ZEPHYR_EXTRA_MODULES.
project(Zephyr-Kernel C ASM)
include(${KCONFIG}/sdkconfig.cmake)

add_library(zephyr_interface INTERFACE)
target_include_directories(zephyr_interface INTERFACE "${CMAKE_CURRENT_LIST_DIR}/include")

macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC)
  target_link_libraries(${name} PUBLIC zephyr_interface)
  set_property(GLOBAL APPEND PROPERTY ZEPHYR_LIBS ${name})
endmacro()

function(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endfunction()

function(zephyr_library_compile_options)
  target_compile_options(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endfunction()

function(zephyr_library_compile_definitions)
  target_compile_definitions(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endfunction()

function(zephyr_include_directories)
  foreach(folder ${ARGV})
    get_filename_component(folder ${folder} ABSOLUTE)
    target_include_directories(zephyr_interface INTERFACE ${folder})
  endforeach()
endfunction()

foreach(module ${ZEPHYR_EXTRA_MODULES} ${MORE_MODULES})
  file(STRINGS ${module}/zephyr/module.yml lines)
  if(NOT "  cmake: ." IN_LIST lines)
    message(FATAL_ERROR "${module}/zephyr/module.yml names no CMakeLists.txt")
  endif()
  string(MD5 binary ${module})
  add_subdirectory(${module} modules/${binary})
endforeach()

zephyr_library_named(app)
get_property(libraries GLOBAL PROPERTY ZEPHYR_LIBS)
add_executable(zephyr_final "${CMAKE_CURRENT_LIST_DIR}/../other_export.c")
target_link_libraries(zephyr_final -Wl,--whole-archive ${libraries} -Wl,--no-whole-archive)

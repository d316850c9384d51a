# SPDX-License-Identifier: Apache-2.0
# The only list of sources, relative to this folder. setup.py and the exporters read it too: keep to plain lists.

# The C kernels, the int8 arithmetic: C99, nothing else needed.
MCUF_CORE_SRCS = \
  core/mcuf_attention_relative.c \
  core/mcuf_attention_relative_dsp.c \
  core/mcuf_attention_relative_mve.c \
  core/mcuf_attention_rows.c \
  core/mcuf_attention_rows_dsp.c \
  core/mcuf_attention_rows_mve.c \
  core/mcuf_block.c \
  core/mcuf_block_dsp_loops.S \
  core/mcuf_block_dsp.c \
  core/mcuf_block_mve.c \
  core/mcuf_block_scalar.c \
  core/mcuf_decomposed_patch_embed_s8.c \
  core/mcuf_depthwise_dsp.S \
  core/mcuf_depthwise_mve.S \
  core/mcuf_depthwise_rows.c \
  core/mcuf_depthwise_rows_dsp.c \
  core/mcuf_depthwise_rows_mve.c \
  core/mcuf_dot_mve.S \
  core/mcuf_in_place_fc_s8.c \
  core/mcuf_int_attention_s8.c \
  core/mcuf_int_gelu_s8.c \
  core/mcuf_int_layer_norm_dsp.S \
  core/mcuf_int_layer_norm_mve.c \
  core/mcuf_int_layer_norm_s8.c \
  core/mcuf_int_layer_norm_scalar.c \
  core/mcuf_status.c \
  core/mcuf_stem_blocks.c \
  core/mcuf_stem_conv_s8.c \
  core/mcuf_stem_rows.c \
  core/mcuf_streamed_attention_s8.c \
  core/mcuf_streamed_mlp_s8.c \
  core/mcuf_streamed_stem_s8.c \
  core/mcuf_sums_scalar.c \
  core/mcuf_sums_scalar_arm.S \
  core/mcuf_sums_scalar_riscv.S \
  core/mcuf_token_mean_s8.c \
  core/mcuf_wide_stream.c

# The front end of networks that take sound: C99 beside the int8 arithmetic, exported with such networks alone.
MCUF_SOUND_SRCS = \
  sound/mcuf_log_mel.c

# C++11 that needs no interpreter: the arena planner, and the reader of options.
MCUF_PLANNER_SRCS = \
  buffer_placement.cc \
  flexbuffer_options.cc \
  token_overwrite_planner.cc

# The check of a model on the device: C++11 that needs no interpreter.
MCUF_CHECK_SRCS = \
  model_check.cc \
  sha256.cc

# The TensorFlow Lite Micro ops around it: C++11.
MCUF_TFLM_SRCS = $(MCUF_PLANNER_SRCS) $(MCUF_CHECK_SRCS) \
  kernels/decomposed_patch_embed.cc \
  kernels/in_place_fc.cc \
  kernels/int_attention.cc \
  kernels/int_gelu.cc \
  kernels/int_layer_norm.cc \
  kernels/kernel_check.cc \
  kernels/params_blob.cc \
  kernels/staged_weights.cc \
  kernels/stem_conv.cc \
  kernels/streamed_attention.cc \
  kernels/streamed_mlp.cc \
  kernels/streamed_stem.cc \
  kernels/token_mean.cc

# The kernels' versions for large processors, and the choice among them: the host's library alone has them.
MCUF_DISPATCH_SRCS = \
  host/mcuf_attention_avx2.c \
  host/mcuf_block_avx2.c \
  host/mcuf_dispatch.c \
  host/mcuf_fc_avx2.c \
  host/mcuf_fc_avx512vnni.c \
  host/mcuf_fc_dotprod.c \
  host/mcuf_fc_panels.c \
  host/mcuf_layer_norm_avx2.c \
  host/mcuf_streamed.c

# The library that Python loads is made of MCUF_CORE_SRCS and these. Everywhere, the parts that need no interpreter ...
MCUF_HOST_CORE_SRCS = $(MCUF_DISPATCH_SRCS) $(MCUF_SOUND_SRCS) $(MCUF_PLANNER_SRCS) $(MCUF_CHECK_SRCS) \
  host/host_headers.cc \
  host/host_log.cc \
  host/host_parts.cc

# ... and if the tflite-micro wheel has a build, all ops, for its interpreter.
MCUF_HOST_SRCS = $(MCUF_DISPATCH_SRCS) $(MCUF_SOUND_SRCS) $(MCUF_TFLM_SRCS) \
  host/host_headers.cc \
  host/host_log.cc \
  host/host_parts.cc \
  host/host_planner_run.cc \
  host/host_plugin.cc

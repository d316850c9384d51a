// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.DecomposedPatchEmbed: image -> tokens; see core/mcuf_decomposed_patch_embed_s8.h.
//   inputs   image [1,H,W,C] int8, or none: then it comes in strips from the external context; weights [fields,d,16*C]
//            int8, in pairs [fields,ceil(d/2),16*C,2], or none; bias [d] int32; multiplier [d] int32; position [1,N,d]
//            int8 or none; position_scale [d] int16, none without position; prefix [P,d], of the output's type, or none
//   output   int8, or int16 of a wide residual stream, [1,P+N,d], N = floor((H + 2 * padding) / patch height) *
//   floor((W + 2 * padding) / patch width); may
//            overwrite the image
//   options  patch_size, the patch's height; patch_width, default patch_size; zero_point; packing of the weights,
//            default MCUF_PACKING_ROWS; padding, default 0; without image also strip_rows (the patch's height or a
//            field's), image_height, image_width, channels; without weights these are staged (see staged_weights.h):
//            also tile_bytes, weights_offset, blocks (params.blocks_per_read)
#include "../core/mcuf_decomposed_patch_embed_s8.h"
#include "../external_context.h"
#include "../mcuformer_ops.h"
#include "kernel_check.h"
#include "staged_weights.h"

namespace mcuformer {
namespace {

enum { kImage, kWeights, kBias, kMultiplier, kPosition, kPositionScale, kPrefix, kInputs };

struct OpData {
  int scratch;
  uint8_t patch_height_less_1;
  uint8_t patch_width_less_1;
  int8_t zero_point;
  uint8_t channels;
  int16_t strip_rows;  // 0: the image is a tensor
  int16_t image_height;
  int16_t image_width;
  uint8_t packing;
  uint8_t padding;
};
static_assert(MCUF_MAX_PATCH_SIZE - 1 <= UINT8_MAX, "OpData holds a patch's sides less 1");

mcuf_decomposed_patch_embed_params Params(const Context* context, const Node* node, const OpData& data) {
  mcuf_decomposed_patch_embed_params params;
  params.image_height = data.image_height;
  params.image_width = data.image_width;
  params.channels = data.channels;
  params.patch_height = data.patch_height_less_1 + 1;
  params.patch_width = data.patch_width_less_1 + 1;
  params.embed_dim = Dim(Output(context, node, 0), -1);
  params.zero_point = data.zero_point;
  params.padding = data.padding;
  params.padded = &mcuf_padded_patches;
  params.packing = data.packing;
  params.weights = Data<int8_t>(Input(context, node, kWeights));
  params.bias = Data<int32_t>(Input(context, node, kBias));
  params.multiplier = Data<int32_t>(Input(context, node, kMultiplier));
  params.position = Data<int8_t>(Input(context, node, kPosition));
  params.position_scale = Data<int16_t>(Input(context, node, kPositionScale));
  params.staged = {};
  params.blocks_per_read = 1;
  params.prefix_tokens = Dim(Input(context, node, kPrefix), 0);
  params.wide = IsWide(Output(context, node, 0)) ? &mcuf_wide : nullptr;
  params.prefix = nullptr;
  params.wide_prefix = nullptr;
  if (params.wide != nullptr) {
    params.wide_prefix = Data<int16_t>(Input(context, node, kPrefix));
  } else {
    params.prefix = Data<int8_t>(Input(context, node, kPrefix));
  }
  if (params.weights == nullptr) {
    params.staged = StagedOptions(node);
    params.blocks_per_read = CheckedOption(node, "blocks");
  }
  return params;
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kDecomposedPatchEmbedName, kMultiplier + 1, kInputs);
  OpData* data = check.OpData<OpData>();
  const bool strips = check.ok() && !check.Has(kImage);
  const EvalTensor* output = check.OutputStream();
  const int64_t patch_height = check.Option("patch_size", 1, MCUF_MAX_PATCH_SIZE);
  int64_t patch_width = patch_height;
  if (check.ok() && ReadOption(node, "patch_width", &patch_width)) {
    patch_width = check.Option("patch_width", 1, MCUF_MAX_PATCH_SIZE);
  }
  data->patch_height_less_1 = static_cast<uint8_t>(patch_height - 1);
  data->patch_width_less_1 = static_cast<uint8_t>(patch_width - 1);
  const mcuf_patch_field field =
      mcuf_patch_field_of(static_cast<int32_t>(patch_height), static_cast<int32_t>(patch_width));
  int64_t padding = 0;
  if (check.ok() && ReadOption(node, "padding", &padding))
    padding = check.Option("padding", 0, MCUF_MAX_PATCH_SIZE - 1);
  check.Require(padding < patch_height && padding < patch_width, "padding must be smaller than the patch");
  data->padding = static_cast<uint8_t>(padding);
  data->zero_point = check.Int8Option("zero_point");
  int64_t height, width, channels;
  if (strips) {
    height = check.Option("image_height", 1, MCUF_MAX_IMAGE_SIDE);
    width = check.Option("image_width", 1, MCUF_MAX_IMAGE_SIDE);
    channels = check.Option("channels", 1, MCUF_MAX_IMAGE_CHANNELS);
    const int64_t strip_rows = check.Option("strip_rows", 1, MCUF_MAX_PATCH_SIZE);
    check.Require(strip_rows == patch_height || strip_rows == field.height,
                  "strip_rows must be the patch's height or a field's");
    data->strip_rows = static_cast<int16_t>(strip_rows);
  } else {
    const EvalTensor* image = check.Activation(kImage, "image");
    check.SingleBatch(image, "image", 4);
    height = Dim(image, 1);
    width = Dim(image, 2);
    channels = Dim(image, 3);
    check.Require(height <= MCUF_MAX_IMAGE_SIDE && width <= MCUF_MAX_IMAGE_SIDE && channels <= MCUF_MAX_IMAGE_CHANNELS,
                  "the image is too large");
    data->strip_rows = 0;
  }
  data->image_height = static_cast<int16_t>(height);
  data->image_width = static_cast<int16_t>(width);
  data->channels = static_cast<uint8_t>(channels);
  check.Require(height >= patch_height && width >= patch_width, "the image is smaller than a patch");
  const int64_t fields = ((patch_height + field.height - 1) / field.height) *  // rows by columns
                         ((patch_width + field.width - 1) / field.width);
  const int64_t tokens = ((height + 2 * padding) / patch_height) * ((width + 2 * padding) / patch_width);
  const int64_t d = Dim(output, -1);
  const int64_t prefix = check.InputDim(kPrefix, 0);
  check.OptionalConstant(kPrefix, "prefix", IsWide(output) ? kInt16 : kInt8, Shape(prefix, d));
  check.ShapeIs(output, "output", Shape(1, prefix + tokens, d));
  const int64_t inputs = MCUF_FIELD_PIXELS * channels;
  data->packing = check.Layer(kWeights, d, Shape(fields, d, inputs), Shape(fields, (d + 1) / 2, inputs, 2));
  if (!check.Has(kWeights)) {
    CheckStagedOptions(&check, node);
    check.Option("blocks", 1, MCUF_MAX_TOKENS);
  }
  check.OptionalConstant(kPosition, "position", kInt8, Shape(1, tokens, d));
  check.OptionalConstant(kPositionScale, "position_scale", kInt16, Shape(d));
  check.Require(check.Has(kPosition) == check.Has(kPositionScale), "position and position_scale go together");
  if (!check.ok()) return kError;
  const mcuf_decomposed_patch_embed_params params = Params(context, node, *data);
  check.Kernel(mcuf_decomposed_patch_embed_s8_check(&params),
               params.wide == nullptr ? kLayerLimits : "what an int8 output needs, and zero point 0");
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  const int32_t tile = params.staged.tile_bytes;
  check.Scratch(strips ? mcuf_decomposed_patch_embed_strips_s8_scratch_bytes(
                             params.image_width, params.channels, params.patch_height, params.patch_width,
                             params.embed_dim, params.blocks_per_read, tile, data->strip_rows, params.padding)
                       : mcuf_decomposed_patch_embed_s8_scratch_bytes(
                             params.image_width, params.channels, params.patch_width, params.embed_dim,
                             params.blocks_per_read, tile, params.padding, mcuf_stream_bytes(params.wide)),
                &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const OpData& data = *static_cast<const OpData*>(node->user_data);
  mcuf_decomposed_patch_embed_params params = Params(context, node, data);
  if (FindWeightSource(context, kDecomposedPatchEmbedName, params.staged.tile_bytes, &params.staged.source) != kOk)
    return kError;
  void* output = MutableData<void>(Output(context, node, 0));
  void* scratch = GetScratch(context, data.scratch);
  if (data.strip_rows == 0) {
    const int8_t* image = Data<int8_t>(Input(context, node, kImage));
    return EvalStatus(context, kDecomposedPatchEmbedName,
                      mcuf_decomposed_patch_embed_s8(&params, image, output, scratch));
  }
  const mcuf_external_context* sources = ExternalSources(context);
  if (sources == nullptr || sources->image_rows == nullptr) {
    MCUF_LOG(context, "%s: no source of image rows: set an mcuf_external_context", kDecomposedPatchEmbedName);
    return kError;
  }
  return EvalStatus(context, kDecomposedPatchEmbedName,
                    mcuf_decomposed_patch_embed_strips_s8(&params, data.strip_rows, sources->image_rows,
                                                          sources->image_user, output, scratch));
}

}  // namespace

Registration Register_DECOMPOSED_PATCH_EMBED() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer

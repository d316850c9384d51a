// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StreamedStem: all convolutions of a stem, row by row; see core/mcuf_streamed_stem_s8.h.
//   inputs   image [1,H,W,C] int8, or none: then it comes in strips from the external context; params uint8, see
//            streamed_layout.h; weights: none, they are in the params
//   output   [1,P+N,d], N tokens of H and W halved by every convolution, rounded up; may overwrite the image
#include "../core/mcuf_streamed_stem_s8.h"

#include "../core/mcuf_target.h"
#include "../external_context.h"
#include "../mcuformer_ops.h"
#include "params_blob.h"
#include "streamed_layout.h"

namespace mcuformer {
namespace {

using namespace streamed_stem;  // NOLINT

enum { kImage, kParams, kWeights, kInputs };

struct OpData {
  int scratch;
};

ParamsBlob Blob(const Context* context, const Node* node) {
  const EvalTensor* params = Input(context, node, kParams);
  return ParamsBlob(Data<uint8_t>(params), Dim(params, 0));
}

static_assert(kMaxConvs == MCUF_STREAMED_STEM_MAX_CONVS, "the layout has places for as many convolutions");

// The first section of the block behind convolution i.
int BlockSections(int32_t i) { return kBlock0 + kBlockSectionCount * i; }

bool HasBlocks(const ParamsBlob& blob) { return blob.Count<int32_t>(kScalars) > kBlock0ZeroPoints; }

int32_t Convolutions(const ParamsBlob& blob) {
  const int32_t scalars = blob.Count<int32_t>(kScalars);
  return HasBlocks(blob) ? 1 + (scalars - kBlock0ZeroPoints) / kBlockZeroPointCount : scalars - kConv0ZeroPoint;
}

bool IsWhole(const ParamsBlob& blob) {
  if (!blob.IsWhole(kConv1Weights)) return false;  // one convolution at least
  const int32_t convs = Convolutions(blob);
  const int32_t zero_points = kBlock0ZeroPoints + kBlockZeroPointCount * (convs - 1);
  if (HasBlocks(blob) != blob.IsWhole(kBlock0 + 1)) return false;
  if (HasBlocks(blob) && (blob.Count<int32_t>(kScalars) != zero_points || blob.IsWhole(BlockSections(convs - 1) + 1))) {
    return false;  // or sections of blocks behind the last one
  }
  return convs >= 1 && convs <= MCUF_STREAMED_STEM_MAX_CONVS && blob.IsWhole(kConv0Weights + kSectionsOfConv * convs);
}

// image: nullptr if it comes in strips. Sections whose sizes contradict each other give a convolution no outputs.
mcuf_streamed_stem_params Read(const ParamsBlob& blob, const EvalTensor* image) {
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  mcuf_streamed_stem_params params;
  params.image_height = image == nullptr ? scalars[kImageHeight] : Dim(image, 1);
  params.image_width = image == nullptr ? scalars[kImageWidth] : Dim(image, 2);
  params.channels = image == nullptr ? scalars[kChannels] : Dim(image, 3);
  params.pad_value = scalars[kPadValue];
  params.pixels_at_once = scalars[kPixelsAtOnce];
  params.packing = scalars[kPacking];
  params.conv_count = Convolutions(blob);
  int32_t channels = params.channels, offset = 0;
  for (int32_t i = 0; i < params.conv_count; ++i) {
    const bool small = channels >= 1 && channels <= MCUF_STEM_MAX_CHANNELS;
    const mcuf_in_place_fc_params layer =
        blob.FullyConnected(kConv0Weights + kSectionsOfConv * i, scalars[kConv0ZeroPoint + i],
                            small ? MCUF_STEM_TAPS * channels : 0, params.packing, 0, &offset);
    mcuf_streamed_stem_conv* conv = &params.convs[i];
    conv->out_channels = channels = layer.in_features > 0 ? layer.out_features : 0;
    conv->zero_point = layer.zero_point;
    conv->weights = layer.weights;
    conv->bias = layer.bias;
    conv->multiplier = layer.multiplier;
  }
  params.position = blob.Data<int8_t>(kPosition);
  params.position_scale = blob.Data<int16_t>(kPositionScale);
  params.prefix_tokens = channels > 0 ? blob.Count<int8_t>(kPrefix) / channels : 0;
  params.prefix = blob.Data<int8_t>(kPrefix);
  params.blocks = nullptr;
  params.block_kernels = nullptr;
  return params;
}

// The block behind each convolution but the last, in a frame of their own: most stems have none.
struct Blocks {
  mcuf_stem_block block[MCUF_STREAMED_STEM_MAX_CONVS - 1];
};

// Whether all sections of a block are empty.
bool IsEmpty(const ParamsBlob& blob, int first) {
  for (int section = first; section < first + kBlockSectionCount; ++section) {
    if (blob.Count<int8_t>(section) > 0) return false;
  }
  return true;
}

// A block whose sections contradict each other gets -1 hidden channels, none of which is legal.
mcuf_stem_block ReadBlock(const ParamsBlob& blob, const mcuf_streamed_stem_params& params, int32_t i) {
  const int first = BlockSections(i);
  const int32_t* zero_points = blob.Data<int32_t>(kScalars) + kBlock0ZeroPoints + kBlockZeroPointCount * i;
  mcuf_stem_block block = {};
  if (IsEmpty(blob, first)) return block;
  const int32_t channels = params.convs[i].out_channels, hidden = blob.Count<int32_t>(first + kDepthwiseBias);
  int32_t offset = 0;
  const mcuf_in_place_fc_params expand =
      blob.FullyConnected(first + kExpandWeights, zero_points[kExpanded], channels, params.packing, 0, &offset);
  const mcuf_in_place_fc_params project =
      blob.FullyConnected(first + kProjectWeights, zero_points[kOutput], hidden, params.packing, 0, &offset);
  const bool agree = expand.in_features > 0 && expand.out_features == hidden && project.in_features > 0 &&
                     project.out_features == channels && blob.Count<int32_t>(first + kDepthwiseMultiplier) == hidden &&
                     blob.Count<int8_t>(first + kDepthwiseWeights) == int64_t{MCUF_STEM_TAPS} * hidden &&
                     blob.Count<int16_t>(first + kResidualScale) == channels;
  block.hidden = agree ? hidden : -1;
  block.expand_zero_point = expand.zero_point;
  block.depthwise_zero_point = zero_points[kDepthwise];
  block.zero_point = project.zero_point;
  block.expand_weights = expand.weights;
  block.expand_bias = expand.bias;
  block.expand_multiplier = expand.multiplier;
  block.depthwise_weights = blob.Data<int8_t>(first + kDepthwiseWeights);
  block.depthwise_bias = blob.Data<int32_t>(first + kDepthwiseBias);
  block.depthwise_multiplier = blob.Data<int32_t>(first + kDepthwiseMultiplier);
  block.project_weights = project.weights;
  block.project_bias = project.bias;
  block.project_multiplier = project.multiplier;
  block.residual_scale = blob.Data<int16_t>(first + kResidualScale);
  return block;
}

// Lets params point to the blocks, which are kept in `blocks`.
void ReadBlocks(const ParamsBlob& blob, mcuf_streamed_stem_params* params, Blocks* blocks) {
  for (int32_t i = 0; i + 1 < params->conv_count; ++i) blocks->block[i] = ReadBlock(blob, *params, i);
  params->blocks = blocks->block;
  params->block_kernels = &mcuf_stem_blocks;
}

int64_t Tokens(int64_t side, int32_t convs) { return (side + (int64_t{1} << convs) - 1) >> convs; }

void CheckSections(PrepareCheck* check, const ParamsBlob& blob, const mcuf_streamed_stem_params& params,
                   const EvalTensor* output) {
  const int64_t d = params.convs[params.conv_count - 1].out_channels;
  const int64_t tokens = Tokens(params.image_height, params.conv_count) * Tokens(params.image_width, params.conv_count);
  check->Require(d > 0, "weights, bias and multiplier of a convolution differ in length");
  const int32_t position = blob.Count<int8_t>(kPosition), scales = blob.Count<int16_t>(kPositionScale);
  check->Require((position == 0) == (scales == 0), "position and position_scale go together");
  check->Require(position == 0 || (position == tokens * d && scales == d),
                 "position must have d entries for each token, position_scale d");
  check->Require(blob.Count<int8_t>(kPrefix) == params.prefix_tokens * d, "prefix must have d entries for each token");
  check->ShapeIs(output, "output", Shape(1, params.prefix_tokens + tokens, d));
}

// The end of Prepare. params: whole, with their blocks.
void Finish(PrepareCheck* check, const mcuf_streamed_stem_params& params, bool strips, OpData* data) {
  check->Kernel(check->ok() ? mcuf_streamed_stem_s8_check(&params) : MCUF_OK, kLayerLimits);
  if (!check->ok()) return;  // only now are the sizes known to be small enough for the next line
  check->Scratch(mcuf_streamed_stem_s8_scratch_bytes_of(&params, strips), &data->scratch);
}

MCUF_OWN_STACK void FinishWithBlocks(PrepareCheck* check, const ParamsBlob& blob, mcuf_streamed_stem_params* params,
                                     bool strips, OpData* data) {
  Blocks blocks;
  ReadBlocks(blob, params, &blocks);
  for (int32_t i = 0; i + 1 < params->conv_count; ++i) {
    check->Require(blocks.block[i].hidden >= 0, "constants of a block differ in length");
  }
  Finish(check, *params, strips, data);
}

Status Prepare(Context* context, Node* node) {
  PrepareCheck check(context, node, kStreamedStemName, kParams + 1, kInputs);
  OpData* data = check.OpData<OpData>();
  const bool strips = check.ok() && !check.Has(kImage);
  const EvalTensor* output = check.OutputActivation();
  const EvalTensor* image = nullptr;
  if (!strips) {
    image = check.Activation(kImage, "image");
    check.SingleBatch(image, "image", 4);
    check.Require(Dim(image, 1) <= MCUF_MAX_IMAGE_SIDE && Dim(image, 2) <= MCUF_MAX_IMAGE_SIDE,
                  "the image is too large");
  }
  check.Require(!check.Has(kWeights), "has a weights tensor, but takes weights from its params");
  check.Constant(kParams, "params", kUInt8, Shape(check.InputDim(kParams, 0)));
  if (!check.ok()) return kError;
  const ParamsBlob blob = Blob(context, node);
  check.Require(IsWhole(blob), "params are not whole: the model is damaged");
  if (!check.ok()) return kError;
  const int32_t* scalars = blob.Data<int32_t>(kScalars);
  const int32_t strip_rows = scalars[kStripRows];
  check.Require(strip_rows == (strips ? MCUF_STREAMED_STEM_STRIP_ROWS : 0),
                strips ? "without an image, strip_rows must be 2" : "with an image, strip_rows must be 0");
  mcuf_streamed_stem_params params = Read(blob, image);
  check.Require(params.image_height >= 1 && params.image_height <= MCUF_MAX_IMAGE_SIDE && params.image_width >= 1 &&
                    params.image_width <= MCUF_MAX_IMAGE_SIDE,
                "the image's height and width must be 1 to 4096");
  CheckSections(&check, blob, params, output);
  if (!check.ok()) return kError;
  if (HasBlocks(blob)) {
    FinishWithBlocks(&check, blob, &params, strips, data);
  } else {
    Finish(&check, params, strips, data);
  }
  return check.status();
}

// params: with their blocks.
Status Run(Context* context, Node* node, const mcuf_streamed_stem_params& params) {
  const EvalTensor* image = Input(context, node, kImage);
  int8_t* output = MutableData<int8_t>(Output(context, node, 0));
  void* scratch = GetScratch(context, static_cast<const OpData*>(node->user_data)->scratch);
  if (image != nullptr) {
    return EvalStatus(context, kStreamedStemName, mcuf_streamed_stem_s8(&params, Data<int8_t>(image), output, scratch));
  }
  const mcuf_external_context* sources = ExternalSources(context);
  if (sources == nullptr || sources->image_rows == nullptr) {
    MCUF_LOG(context, "%s: no source of image rows: set an mcuf_external_context", kStreamedStemName);
    return kError;
  }
  return EvalStatus(context, kStreamedStemName,
                    mcuf_streamed_stem_strips_s8(&params, sources->image_rows, sources->image_user, output, scratch));
}

MCUF_OWN_STACK Status RunWithBlocks(Context* context, Node* node, const ParamsBlob& blob,
                                    mcuf_streamed_stem_params* params) {
  Blocks blocks;
  ReadBlocks(blob, params, &blocks);
  return Run(context, node, *params);
}

Status Eval(Context* context, Node* node) {
  const ParamsBlob blob = Blob(context, node);
  mcuf_streamed_stem_params params = Read(blob, Input(context, node, kImage));
  return HasBlocks(blob) ? RunWithBlocks(context, node, blob, &params) : Run(context, node, params);
}

}  // namespace

Registration Register_STREAMED_STEM() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer

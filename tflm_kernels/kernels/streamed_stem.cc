// SPDX-License-Identifier: Apache-2.0
//
// mcuformer.StreamedStem: all convolutions of a stem, row by row; see core/mcuf_streamed_stem_s8.h.
//   inputs   image [1,H,W,C] int8, or none: then it comes in strips from the external context; params uint8, see
//            streamed_layout.h; weights: none, they are in the params
//   output   [1,P+N,d], N tokens of H and W halved by every convolution, rounded up; may overwrite the image
#include "../core/mcuf_streamed_stem_s8.h"

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

int32_t Convolutions(const ParamsBlob& blob) { return blob.Count<int32_t>(kScalars) - kConv0ZeroPoint; }

bool IsWhole(const ParamsBlob& blob) {
  if (!blob.IsWhole(kConv1Weights)) return false;  // one convolution at least
  const int32_t convs = Convolutions(blob);
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
  return params;
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
  const mcuf_streamed_stem_params params = Read(blob, image);
  check.Require(params.image_height >= 1 && params.image_height <= MCUF_MAX_IMAGE_SIDE && params.image_width >= 1 &&
                    params.image_width <= MCUF_MAX_IMAGE_SIDE,
                "the image's height and width must be 1 to 4096");
  CheckSections(&check, blob, params, output);
  check.Kernel(check.ok() ? mcuf_streamed_stem_s8_check(&params) : MCUF_OK, kLayerLimits);
  if (!check.ok()) return kError;  // only now are the sizes known to be small enough for the next line
  check.Scratch(mcuf_streamed_stem_s8_scratch_bytes_of(&params, strips), &data->scratch);
  return check.status();
}

Status Eval(Context* context, Node* node) {
  const EvalTensor* image = Input(context, node, kImage);
  const mcuf_streamed_stem_params params = Read(Blob(context, node), image);
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

}  // namespace

Registration Register_STREAMED_STEM() { return MakeRegistration(InitOpData<OpData>, Prepare, Eval); }

}  // namespace mcuformer

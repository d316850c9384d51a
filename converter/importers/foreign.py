# SPDX-License-Identifier: Apache-2.0
"""Tensors that tell of something the network cannot do, and those that it does not need."""

from __future__ import annotations

ATTENTION_POOL = "pools by attention (map head), which the network has not; train one that reads a token or the mean"
CONV_STEM = "a convolutional network makes its tokens (hybrid), which is not read; only a patch embedding is"
PATCH_NORM = "a LayerNorm within the patch embedding (of pixels, or before the position), which the network has not"

RELATIVE = (
    r"^rel_pos_bias\.relative_position_|^blocks\.\d+\.attn\.relative_position_"  # BEiT, as timm names them
    r"|(shared_position_bias|relative_position_bias)\.relative_position_"  # as Hugging Face does
    r"|^blocks\.\d+\.attn\.rel_pos_embed_[kv]\.embeddings_table_[vh]$"  # AutoFormer
)
"""Names of relative positions that a family reads."""

FOREIGN = (
    (r"(\.|^)(q_norm|k_norm|norm_q|norm_k|query_norm|key_norm|q_layernorm|k_layernorm)\.",
     "normalises queries and keys (qk-norm), which the attention kernels do not"),
    (r"\.mlp\.(w12|w1|w2|w3|fc1_g|fc1_x|gate_proj|up_proj|weights_in|weights_out)\.",
     "a gated MLP (SwiGLU), which the network has not"),
    (rf"^(?!.*({RELATIVE})).*(relative_position|rel_pos|relative_attention_bias|pos_bias_table)",
     "relative positions of another kind than BEiT's and AutoFormer's, which the attention kernels do not add"),
    (r"(\.|^)(rope|rotary|inv_freq|freqs|rope_embeddings|periods)",
     "rotary positions (RoPE), which the attention kernels do not apply"),
    (r"(\.|^)(cpb_mlp|logit_scale|attn_mask|downsample|patch_merger)",
     "windows of attention, or tokens merged between layers, which the network has not"),
    (r"^(attn_pool|map_head|probe)\.", ATTENTION_POOL),
    (r"(\.|^)patch_embed\.(backbone|stem|conv|proj\.\d)", CONV_STEM),
    (r"(\.|^)patch_embed\.norm\.", PATCH_NORM),
    (r"\.attn\.norm\.|\.mlp\.norm\.", "normalises inside attention or MLP, which the network does not"),
    (r"\.attn\.(gate|sub_norm|lambda_)", "gated or differential attention, which the kernels have not"),
    (r"\.(attns|ffns)\.\d|\.in_proj\.weight$|\.in_norm\.", "attention and MLP side by side (parallel blocks)"),
    (r"(^|\.)pre_logits\.", "a hidden layer between the tokens and the head, which the network has not"),
    (r"^(decoder|lm_head|fc_mask)", "a decoder, used to train only; save the encoder alone"),
    (r"^(decode_head|auxiliary_head|fpn\d?)\.", "a decoder of segmentation, which the network has not"),
    (r"^(text_model|text_projection|visual_projection|transformer\.resblocks)",
     "a model of text and images (CLIP); save its image tower alone, as timm names it"),
    (r"^(optimizer|criterion|loss)\.", "of the training, not of the network; save module.state_dict()"),
    (r"(parametrizations|_orig$|weight_g$|weight_v$|_packed_params|lora_)",
     "a rewritten weight (weight norm, pruning, quantisation, LoRA); merge it before saving"),
)  # fmt: skip
"""(regular expression of a tensor's name, why its network is refused), of all families."""

LEFT_OUT = (
    (r"\.relative_position_index$", "says which entry each pair of tokens reads, which follows from the grid"),
    (r"(^|\.)mask_token$", "stands for hidden patches, in training only"),
    (r"(^|\.)pooler\.(dense|layer)", "a hidden layer on the class token, which no head reads"),
    (r"\.num_batches_tracked$", "counts the training's batches"),
)
"""(regular expression of a tensor's name, why the network does not need it)."""

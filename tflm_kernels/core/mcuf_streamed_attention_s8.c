/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_streamed_attention_s8.h"

#include <string.h>

#include "mcuf_attention_rows.h"
#include "mcuf_fixed_point.h"
#include "mcuf_streamed_norm.h"
#include "mcuf_target.h"
#ifdef MCUF_DISPATCH
#include MCUF_DISPATCH
#endif

/* Makes a copy of a layer what is called for some tokens. By address: a struct that is returned takes its stack twice.
 */
static void set_tokens(mcuf_in_place_fc_params* fc, int32_t tokens) {
  fc->tokens = fc->tokens_per_read = tokens;
  fc->in_stride = fc->in_features;
}

/* Whether a matrix takes in_features channels. rank: the layer before it, if it has low rank. */
static bool takes(const mcuf_streamed_attention_params* p, const mcuf_in_place_fc_params* matrix,
                  const mcuf_in_place_fc_params* rank, int64_t in_features) {
  if (rank->out_features == 0) return matrix->in_features == in_features;
  return rank->in_features == in_features && rank->out_features == matrix->in_features &&
         rank->out_features <= p->norm.features && rank->staged.tile_bytes == p->qkv.staged.tile_bytes;
}

static mcuf_status check_rank(const mcuf_in_place_fc_params* rank, int32_t tokens) {
  mcuf_in_place_fc_params fc = *rank;
  set_tokens(&fc, tokens);
  return rank->out_features == 0 ? MCUF_OK : mcuf_in_place_fc_s8_check(&fc, 0);
}

mcuf_status mcuf_streamed_attention_s8_check(const mcuf_streamed_attention_params* p) {
  if (p->head_dim < 1 || p->head_dim > MCUF_ATTENTION_MAX_HEAD_DIM || p->num_heads < 1 ||
      p->num_heads > MCUF_MAX_FEATURES || p->kv_heads < 1 || p->kv_heads > p->num_heads) {
    return MCUF_ERROR_SIZE;
  }
  const int64_t q_width = (int64_t)p->num_heads * p->head_dim, kv_width = (int64_t)p->kv_heads * p->head_dim;
  if (!takes(p, &p->qkv, &p->qkv_rank, p->norm.features) || !takes(p, &p->proj, &p->proj_rank, q_width) ||
      q_width + 2 * kv_width != p->qkv.out_features || p->proj.out_features != p->norm.features ||
      p->tokens_at_once < 1 || p->tokens_at_once > MCUF_MAX_TOKENS || p->kv_heads_at_once < 1 ||
      p->kv_heads_at_once > p->kv_heads || p->kv_heads % p->kv_heads_at_once != 0 ||
      p->qkv.staged.tile_bytes != p->proj.staged.tile_bytes) {
    return MCUF_ERROR_SIZE;
  }
  if (p->qkv.packing == MCUF_PACKING_PAIRS && p->head_dim % 2 != 0) return MCUF_ERROR_SIZE; /* heads start at rows */
  mcuf_in_place_fc_params qkv = p->qkv, proj = p->proj;
  set_tokens(&qkv, p->tokens);
  set_tokens(&proj, p->tokens);
  const mcuf_int_attention_params attention = {
      p->tokens,           p->num_heads,  p->kv_heads,    p->head_dim, p->qkv.out_features,
      p->qkv.out_features, p->zero_point, p->head_params, p->relative,
  };
  mcuf_status status = mcuf_int_attention_s8_check(&attention);
  if (status == MCUF_OK) status = mcuf_streamed_norm_check(&p->norm, p->tokens, p->wide);
  if (status == MCUF_OK) status = mcuf_in_place_fc_s8_check(&qkv, 0);
  if (status == MCUF_OK) status = mcuf_in_place_fc_s8_check(&proj, 1);
  if (status == MCUF_OK && p->wide != NULL) status = mcuf_wide_fc_check(&proj);
  if (status == MCUF_OK) status = check_rank(&p->qkv_rank, p->tokens);
  if (status == MCUF_OK) status = check_rank(&p->proj_rank, p->tokens);
  return status;
}

/* Sizes of the parts of scratch, in bytes and in order. One pass handles kv_heads_at_once key/value heads
 * and the query heads that use them. */
typedef struct {
  int32_t pass_width; /* channels of one pass's queries */
  int32_t kept_width; /* channels of the outputs that wait for the last pass */
  int32_t work;       /* of a fully connected layer or of four attention rows */
  int32_t keys;       /* of kv_heads_at_once heads, as mcuf_attention_rows.h stores them; values as many */
  int32_t kept;       /* int8 [tokens, kept_width] */
  int32_t normal;     /* int8 [tokens_at_once, d], also for what qkv_rank and proj_rank make of as many tokens */
  int32_t queries;    /* int8 [tokens_at_once, pass_width], or keys or values of as many tokens */
  int32_t outputs;    /* int8 [tokens_at_once, num_heads * head_dim]; none if the queries are all of it */
  int32_t rank;       /* int8 [tokens_at_once, qkv_rank], what staged qkv_rank makes: it does not overwrite its input */
  int32_t tables;     /* of relative positions, as keys and values are stored */
} attention_parts;

static attention_parts parts_of(int32_t tokens, int32_t tokens_at_once, int32_t d, int32_t num_heads, int32_t kv_heads,
                                int32_t kv_heads_at_once, int32_t head_dim, int32_t tile_bytes, int32_t qkv_rank,
                                int32_t table_length) {
  attention_parts a;
  const int32_t q_width = num_heads * head_dim;
  a.pass_width = num_heads / kv_heads * kv_heads_at_once * head_dim;
  a.kept_width = q_width - a.pass_width;
  a.work = mcuf_in_place_fc_s8_scratch_bytes(d > q_width ? d : q_width, tile_bytes, 0); /* no staged one overwrites */
  const int32_t rows = mcuf_attention_rows_scratch_bytes(tokens, head_dim) + mcuf_relative_scratch_bytes(table_length);
  if (rows > a.work) a.work = rows;
  a.keys = kv_heads_at_once * mcuf_attention_keys_bytes(tokens, head_dim);
  a.kept = tokens * a.kept_width;
  a.normal = tokens_at_once * d;
  a.queries = tokens_at_once * a.pass_width;
  a.outputs = a.kept_width > 0 ? tokens_at_once * q_width : 0;
  a.rank = tile_bytes > 0 ? tokens_at_once * qkv_rank : 0;
  a.tables = 2 * mcuf_attention_keys_bytes(table_length, head_dim);
  return a;
}

int32_t mcuf_streamed_attention_s8_scratch_bytes(int32_t tokens, int32_t tokens_at_once, int32_t d, int32_t num_heads,
                                                 int32_t kv_heads, int32_t kv_heads_at_once, int32_t head_dim,
                                                 int32_t tile_bytes, int32_t qkv_rank, int32_t table_length) {
  const attention_parts a = parts_of(tokens, tokens_at_once, d, num_heads, kv_heads, kv_heads_at_once, head_dim,
                                     tile_bytes, qkv_rank, table_length);
  return a.work + a.tables + 2 * a.keys + a.kept + a.normal + a.queries + a.outputs + a.rank;
}

int32_t mcuf_streamed_attention_s8_scratch_bytes_of(const mcuf_streamed_attention_params* p) {
  return mcuf_streamed_attention_s8_scratch_bytes(
      p->tokens, p->tokens_at_once, p->norm.features, p->num_heads, p->kv_heads, p->kv_heads_at_once, p->head_dim,
      p->qkv.staged.tile_bytes, p->qkv_rank.out_features, mcuf_relative_length(&p->relative, p->tokens));
}

/* What one call works with; the pointers are the parts of scratch. */
typedef struct {
  const mcuf_streamed_attention_params* p;
  int32_t pass_width, kept_width; /* as in attention_parts */
  int8_t *work, *keys, *values, *kept, *normal, *queries, *outputs;
  int8_t* rows;                    /* what qkv takes: normal, or what qkv_rank made of it */
  mcuf_attention_rows_shape shape; /* out_stride: of the present rows */
  mcuf_relative_rows relative;     /* of the present head */
} attention_state;

/* Rows [row, row + count) of the qkv layer, on the tokens that prepare_tokens() left. */
static MCUF_OWN_STACK mcuf_status qkv_rows(const attention_state* s, int32_t row, int32_t count, int32_t tokens,
                                           int8_t* output) {
  mcuf_in_place_fc_params fc = s->p->qkv;
  set_tokens(&fc, tokens);
  fc.out_features = count;
  if (fc.staged.tile_bytes > 0) {
    fc.staged.offset += (int32_t)mcuf_packed_offset(row, fc.in_features, fc.packing);
  } else {
    fc.weights += mcuf_packed_offset(row, fc.in_features, fc.packing);
  }
  fc.bias += row;
  fc.multiplier += row;
  return mcuf_in_place_fc_s8(&fc, s->rows, NULL, output, s->work);
}

static MCUF_OWN_STACK mcuf_status normalise_tokens(const attention_state* s, const int8_t* tokens, int32_t count) {
  return mcuf_streamed_norm(&s->p->norm, s->p->wide, tokens, count, s->normal);
}

/* The first factor of a matrix of low rank. */
static MCUF_OWN_STACK mcuf_status rank_rows(const attention_state* s, const mcuf_in_place_fc_params* layer,
                                            const int8_t* input, int32_t count, int8_t* output) {
  mcuf_in_place_fc_params fc = *layer;
  set_tokens(&fc, count);
  return mcuf_in_place_fc_s8(&fc, input, NULL, output, s->work);
}

/* The rows from which q, k and v of some tokens are made. */
static mcuf_status prepare_tokens(const attention_state* s, const int8_t* tokens, int32_t count) {
  const mcuf_status status = normalise_tokens(s, tokens, count);
  if (status != MCUF_OK || s->p->qkv_rank.out_features == 0) return status;
  return rank_rows(s, &s->p->qkv_rank, s->normal, count, s->rows);
}

/* Keys and values of key/value heads [head, head + kv_heads_at_once), for the tokens [first, first + count). */
static mcuf_status make_keys(const attention_state* s, int32_t head, int32_t first, int32_t count) {
  const mcuf_streamed_attention_params* p = s->p;
  const int32_t dim = p->head_dim;
  const int32_t k_row = (p->num_heads + head) * dim, v_row = k_row + p->kv_heads * dim;
  const int32_t heads = p->kv_heads_at_once, width = heads * dim;
  const ptrdiff_t bytes = mcuf_attention_keys_bytes(p->tokens, dim);
  mcuf_status status = qkv_rows(s, k_row, width, count, s->queries);
  if (status != MCUF_OK) return status;
  for (int32_t i = 0; i < heads; ++i) {
    mcuf_attention_store_keys(&s->shape, s->keys + i * bytes, first, count, s->queries + i * dim, width);
  }
  status = qkv_rows(s, v_row, width, count, s->queries);
  if (status != MCUF_OK) return status;
  for (int32_t i = 0; i < heads; ++i) {
    mcuf_attention_store_values(&s->shape, s->values + i * bytes, first, count, s->queries + i * dim, width);
  }
  return MCUF_OK;
}

/* Attention of the query heads of one pass for count tokens of s->queries, from token first on; head: the first. */
static MCUF_OWN_STACK void attend(attention_state* s, int32_t head, int32_t first, int32_t count, int8_t* output,
                                  int32_t out_stride) {
  const mcuf_streamed_attention_params* p = s->p;
  const int32_t dim = p->head_dim, group = p->num_heads / p->kv_heads;
  s->shape.out_stride = out_stride;
  for (int32_t h = 0; h < group * p->kv_heads_at_once; ++h) {
    const ptrdiff_t kv = (ptrdiff_t)(h / group) * mcuf_attention_keys_bytes(p->tokens, dim);
    if (s->shape.relative != NULL) mcuf_relative_set_head(&s->relative, &p->relative, head + h);
#ifdef MCUF_DISPATCH
    const ptrdiff_t column = (ptrdiff_t)h * dim;
    if (mcuf_attention_head(&s->shape, p->head_params + (ptrdiff_t)MCUF_ATTENTION_HEAD_PARAMS * (head + h),
                            s->queries + column, s->pass_width, s->keys + kv, s->values + kv, count, output + column)) {
      continue;
    }
#endif
    for (int32_t t = 0; t < count; t += MCUF_TOKEN_BLOCK) {
      const int32_t left = count - t;
      if (s->shape.relative != NULL) s->relative.query = first + t;
      mcuf_attention_rows(&s->shape, p->head_params + (ptrdiff_t)MCUF_ATTENTION_HEAD_PARAMS * (head + h),
                          s->queries + (ptrdiff_t)t * s->pass_width + (ptrdiff_t)h * dim, s->pass_width, s->keys + kv,
                          s->values + kv, left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK, s->work,
                          output + (ptrdiff_t)t * out_stride + (ptrdiff_t)h * dim);
    }
  }
}

/* Projection of tokens whose attention outputs lie in rows, and residual, onto the stream. */
static MCUF_OWN_STACK mcuf_status project(const attention_state* s, const int8_t* rows, int32_t count, int8_t* tokens) {
  mcuf_in_place_fc_params fc = s->p->proj;
  set_tokens(&fc, count);
  if (s->p->wide != NULL) return s->p->wide->add_fc(&fc, rows, (int16_t*)(void*)tokens, s->work);
  return mcuf_in_place_fc_s8(&fc, rows, tokens, tokens, s->work);
}

/* The last pass of some tokens: its outputs after those that waited, then the projection, by its two factors if it has
 * them. */
static mcuf_status finish_tokens(attention_state* s, int32_t head, int32_t first, int32_t count, int8_t* tokens) {
  const int32_t q_width = s->p->num_heads * s->p->head_dim, kept = s->kept_width;
  const int8_t* rows = s->queries;
  if (kept == 0) {
    attend(s, head, first, count, s->queries, s->pass_width);
  } else {
    rows = s->outputs;
    attend(s, head, first, count, s->outputs + kept, q_width);
    for (int32_t t = 0; t < count; ++t) {
      memcpy(s->outputs + (ptrdiff_t)t * q_width, s->kept + (ptrdiff_t)(first + t) * kept, (size_t)kept);
    }
  }
  if (s->p->proj_rank.out_features > 0) {
    const mcuf_status status = rank_rows(s, &s->p->proj_rank, rows, count, s->normal);
    if (status != MCUF_OK) return status;
    rows = s->normal;
  }
  return project(s, rows, count, tokens);
}

/* Lays out scratch, and stores the tables of relative positions. */
static MCUF_OWN_STACK void begin(attention_state* s, const mcuf_streamed_attention_params* p, void* scratch) {
  s->p = p;
  const attention_parts size = parts_of(p->tokens, p->tokens_at_once, p->norm.features, p->num_heads, p->kv_heads,
                                        p->kv_heads_at_once, p->head_dim, p->qkv.staged.tile_bytes,
                                        p->qkv_rank.out_features, mcuf_relative_length(&p->relative, p->tokens));
  s->pass_width = size.pass_width;
  s->kept_width = size.kept_width;
  s->work = (int8_t*)scratch;
  int8_t* tables = s->work + size.work;
  s->keys = tables + size.tables;
  s->values = s->keys + size.keys;
  s->kept = s->values + size.keys;
  s->normal = s->kept + size.kept;
  s->queries = s->normal + size.normal;
  s->outputs = s->queries + size.queries;
  s->rows = size.rank > 0 ? s->outputs + size.outputs : s->normal;
  s->shape = (mcuf_attention_rows_shape){
      p->tokens,
      p->head_dim,
      0,
      p->zero_point,
      mcuf_attention_numerator_shift_with(p->tokens, &p->relative),
      p->relative.rows > 0 ? &s->relative : NULL,
  };
  if (s->shape.relative != NULL) p->relative.kernels->begin(&s->relative, &p->relative, &s->shape, tables);
}

mcuf_status MCUF_PORTABLE_NAME(mcuf_streamed_attention_s8)(const mcuf_streamed_attention_params* p, void* stream,
                                                           void* scratch) {
  const int32_t token_bytes = p->norm.features * mcuf_stream_bytes(p->wide), group = p->num_heads / p->kv_heads;
  attention_state s;
  begin(&s, p, scratch);
  for (int32_t kv = 0; kv < p->kv_heads; kv += p->kv_heads_at_once) {
    const bool last = kv + p->kv_heads_at_once == p->kv_heads;
    const int32_t head = kv * group, column = head * p->head_dim;
    for (int32_t pass = 0; pass < 2; ++pass) { /* keys and values of all tokens, then queries */
      for (int32_t first = 0; first < p->tokens; first += p->tokens_at_once) {
        const int32_t left = p->tokens - first;
        const int32_t count = left < p->tokens_at_once ? left : p->tokens_at_once;
        int8_t* tokens = (int8_t*)stream + (ptrdiff_t)first * token_bytes;
        mcuf_status status = prepare_tokens(&s, tokens, count);
        if (status == MCUF_OK && pass == 0) {
          status = make_keys(&s, kv, first, count);
        } else if (status == MCUF_OK) {
          status = qkv_rows(&s, column, s.pass_width, count, s.queries);
          if (status == MCUF_OK && last) {
            status = finish_tokens(&s, head, first, count, tokens);
          } else if (status == MCUF_OK) {
            attend(&s, head, first, count, s.kept + (ptrdiff_t)first * s.kept_width + column, s.kept_width);
          }
        }
        if (status != MCUF_OK) return status;
      }
    }
  }
  return MCUF_OK;
}

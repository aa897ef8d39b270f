/* A decoding step for CPUs, float32: rollout.Engine.decode_step and its functions, those of kernels.py, define what is
   right, and have the same names here. Called by native/__init__.py.

   Axes: T tokens, B rows of the batch, H query heads, C key/value heads, D head size, V vocabulary, K and N the inputs
   and outputs of a matrix. The keys and values of a layer lie in kv (pages, 2, C, page size, D). */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define TILE 64          /* keys, or words, looked at together */
#define OUTPUTS 16       /* of a matrix, whose weights stay in a near cache while all tokens meet them */
#define WORTHWHILE 16384 /* so much work is worth waking other threads */

typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias)); /* what a register holds */
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

#ifdef __clang__
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else /* older ones of gcc do not know that */
typedef int32_t Order __attribute__((vector_size(32)));
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (Order){__VA_ARGS__})
#endif

/* Sums of neighbours: those of a in the first half of each 16 bytes, those of b in the second. */
#define NEIGHBOURS(a, b) \
    (SHUFFLED(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + SHUFFLED(a, b, 1, 3, 9, 11, 5, 7, 13, 15))

static inline float larger(float a, float b) { return a > b ? a : b; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* x (T, K), weight (N, K) -> out (T, N) = x weight' + added, which is (N) with a stride of 0, (T, N) with one of N, or
   null. K is a multiple of 8, N at least 4, and a multiple of 4 if `added` is out. Three tokens meet four outputs at a
   time: twelve sums, which stay in registers. The last four are the last ones of N, some perhaps for a second time. */
void linear(const float *x, const float *weight, const float *added, int64_t added_stride, float *out, int64_t T,
            int64_t N, int64_t K) {
    #pragma omp parallel for if (T * N * K > WORTHWHILE)
    for (int64_t start = 0; start < N - 3; start += OUTPUTS) {
        const int64_t end = N - start < OUTPUTS + 4 ? N : start + OUTPUTS;
        for (int64_t t = 0; t < T; t += 3) {
            const float *rows[3];
            for (int r = 0; r < 3; r++) rows[r] = x + smaller(t + r, T - 1) * K;
            for (int64_t next = start; next < end; next += 4) {
                const int64_t n = smaller(next, N - 4);
                Eight sums[3][4] = {0};
                for (int64_t k = 0; k < K; k += 8) {
                    const Eight a = *(const Eight *)(rows[0] + k), b = *(const Eight *)(rows[1] + k),
                                c = *(const Eight *)(rows[2] + k);
                    for (int i = 0; i < 4; i++) {
                        const Eight w = *(const Eight *)(weight + (n + i) * K + k);
                        __asm__("" ::: "memory"); /* or gcc reads a, b, c and w anew for every product */
                        sums[0][i] += a * w;
                        sums[1][i] += b * w;
                        sums[2][i] += c * w;
                    }
                }
                for (int r = 0; r < 3 && t + r < T; r++) {
                    const Eight *s = sums[r], both = NEIGHBOURS(NEIGHBOURS(s[0], s[1]), NEIGHBOURS(s[2], s[3]));
                    const Four *halves = (const Four *)&both;
                    Four sum = halves[0] + halves[1];
                    if (added) sum += *(const Four *)(added + (t + r) * added_stride + n);
                    *(Four *)(out + (t + r) * N + n) = sum;
                }
            }
        }
    }
}

/* x, out (T, width), weight (width) */
void rms_norm(const float *x, const float *weight, float *out, float eps, int64_t T, int64_t width) {
    #pragma omp parallel for if (T * width > WORTHWHILE)
    for (int64_t t = 0; t < T; t++) {
        const float *row = x + t * width;
        float squares = 0;
        for (int64_t i = 0; i < width; i++) squares += row[i] * row[i];
        const float scale = 1 / sqrtf(squares / width + eps);
        for (int64_t i = 0; i < width; i++) out[t * width + i] = row[i] * scale * weight[i];
    }
}

/* gate_up (T, 2 width), out (T, width) */
void silu_mul(const float *gate_up, float *out, int64_t T, int64_t width) {
    #pragma omp parallel for if (T * width > WORTHWHILE)
    for (int64_t t = 0; t < T; t++) {
        const float *gate = gate_up + 2 * t * width, *up = gate + width;
        for (int64_t i = 0; i < width; i++) /* below -80 nothing is left, and exp of more would be infinite */
            out[t * width + i] = gate[i] / (1 + expf(-larger(gate[i], -80))) * up[i];
    }
}

/* qkv (T, H + 2C, D) and kv change in place; gains (H + C, D) or null, cosines, sines (T, D), slot_mapping (T, 2C) in kv */
void norm_rope_append(float *qkv, const float *gains, const float *cosines, const float *sines, float *kv,
                      const int64_t *slot_mapping, float eps, int64_t T, int64_t H, int64_t C, int64_t D) {
    const int64_t heads = H + 2 * C, half = D / 2;
    #pragma omp parallel for if (T * heads * D > WORTHWHILE)
    for (int64_t item = 0; item < T * heads; item++) {
        const int64_t t = item / heads, head = item % heads;
        float *x = qkv + item * D;
        if (head < H + C) {
            const float *cosine = cosines + t * D, *sine = sines + t * D;
            float normal[D], squares = 0;
            for (int64_t d = 0; d < D; d++) squares += x[d] * x[d];
            const float scale = 1 / sqrtf(squares / D + eps);
            for (int64_t d = 0; d < D; d++) normal[d] = gains ? x[d] * scale * gains[head * D + d] : x[d];
            for (int64_t d = 0; d < half; d++) {
                x[d] = normal[d] * cosine[d] + normal[d + half] * sine[d];
                x[d + half] = normal[d + half] * cosine[d + half] + normal[d] * sine[d + half];
            }
        }
        if (head >= H) { /* a key or a value */
            float *place = kv + slot_mapping[t * 2 * C + head - H] * D;
            for (int64_t d = 0; d < D; d++) place[d] = x[d];
        }
    }
}

/* What a query head knows of the keys seen so far: their highest score, the sum of exp(score - highest), and the sum
   (D) of values weighted by it. */
typedef struct {
    float highest, total, *values;
} Seen;

/* The scores of 8 keys. Each has 8 partial sums; they are added up two keys at a time, which leaves the keys in
   order. */
static inline __attribute__((always_inline)) Eight scores_of(const float *query, const float *keys, const int64_t D) {
    Eight s[8];
    for (int key = 0; key < 8; key++) {
        const Eight *a = (const Eight *)query, *b = (const Eight *)(keys + key * D);
        s[key] = a[0] * b[0];
        for (int64_t i = 1; i < D / 8; i++) s[key] += a[i] * b[i];
    }
    for (int n = 4; n > 1; n /= 2)
        for (int i = 0; i < n; i++) s[i] = NEIGHBOURS(s[2 * i], s[2 * i + 1]);
    return SHUFFLED(s[0], s[1], 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLED(s[0], s[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/* A query head looks at up to TILE keys. D is a multiple of 8, and a constant for the usual sizes, so that what a head
   knows stays in registers. */
static inline __attribute__((always_inline)) void look(Seen *seen, const float *query, const float *keys,
                                                       const float *values, int64_t count, const int64_t D) {
    float weights[TILE], highest = seen->highest, total = 0;
    int64_t t = 0;
    for (; t + 8 <= count; t += 8) *(Eight *)(weights + t) = scores_of(query, keys + t * D, D);
    for (; t < count; t++) {
        weights[t] = 0;
        for (int64_t d = 0; d < D; d++) weights[t] += query[d] * keys[t * D + d];
    }
    for (t = 0; t < count; t++) highest = larger(highest, weights[t]);
    for (t = 0; t < count; t++) {
        weights[t] = expf(weights[t] - highest);
        total += weights[t];
    }
    const float keep = expf(seen->highest - highest);
    Eight *before = (Eight *)seen->values, sums[D / 8];
    for (int64_t i = 0; i < D / 8; i++) sums[i] = before[i] * keep;
    for (t = 0; t < count; t++)
        for (int64_t i = 0; i < D / 8; i++) sums[i] += weights[t] * ((const Eight *)(values + t * D))[i];
    for (int64_t i = 0; i < D / 8; i++) before[i] = sums[i];
    seen->total = seen->total * keep + total;
    seen->highest = highest;
}

/* A kernels.KeyTable: block_table (items, columns), lengths (items) */
typedef struct {
    const int32_t *lengths, *block_table;
    int64_t columns;
} Table;

/* The n query heads of a row that share the key/value head c ask items[0] of the first table and items[1] of the
   second. They meet the keys tile by tile, while these are in the first cache. */
static inline __attribute__((always_inline)) void attend(const float *q, const float *kv, float *out, int64_t page_size,
                                                         int64_t n, int64_t C, int64_t c, float scale,
                                                         const Table *tables, const int64_t *items, const int64_t D) {
    float queries[n * D], values[n * D];
    Seen seen[n];
    for (int64_t i = 0; i < n * D; i++) queries[i] = q[i] * scale, values[i] = 0;
    for (int64_t h = 0; h < n; h++) seen[h] = (Seen){-1e30f, 0, values + h * D};
    for (int part = 0; part < 2; part++) {
        const int64_t length = tables[part].lengths[items[part]];
        const int32_t *pages = tables[part].block_table + items[part] * tables[part].columns;
        for (int64_t start = 0, count; start < length; start += count) {
            const int64_t offset = start % page_size, page = pages[start / page_size];
            const float *keys = kv + ((page * 2 * C + c) * page_size + offset) * D;
            count = smaller(smaller(page_size - offset, length - start), TILE);
            for (int64_t h = 0; h < n; h++) look(seen + h, queries + h * D, keys, keys + C * page_size * D, count, D);
        }
    }
    for (int64_t i = 0; i < n * D; i++) out[i] = values[i] / seen[i / D].total;
}

/* q (B, H, D), q_stride numbers from row to row, out (B, H, D). rows (prompts, J) ask the prompts, -1 being no row;
   row b asks response b too. */
void decode_attention(const float *q, int64_t q_stride, const float *kv, float *out, int64_t page_size, int64_t H,
                      int64_t C, int64_t D, float scale, const int32_t *rows, int64_t prompts, int64_t J,
                      const int32_t *prompt_lengths, const int32_t *prompt_block_table, int64_t prompt_columns,
                      const int32_t *own_lengths, const int32_t *own_block_table, int64_t own_columns) {
    const Table tables[] = {{prompt_lengths, prompt_block_table, prompt_columns}, {own_lengths, own_block_table, own_columns}};
    const int64_t n = H / C;
    #pragma omp parallel for schedule(dynamic)
    for (int64_t job = 0; job < prompts * J * C; job++) {
        const int64_t place = job / C, c = job % C, row = rows[place], items[] = {place / J, row};
        if (row < 0) continue;
        const float *query = q + row * q_stride + c * n * D;
        float *result = out + (row * H + c * n) * D;
        switch (D) {
            case 32: attend(query, kv, result, page_size, n, C, c, scale, tables, items, 32); break;
            case 64: attend(query, kv, result, page_size, n, C, c, scale, tables, items, 64); break;
            case 128: attend(query, kv, result, page_size, n, C, c, scale, tables, items, 128); break;
            default: attend(query, kv, result, page_size, n, C, c, scale, tables, items, D);
        }
    }
}

static inline uint32_t hash32(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

/* logits (B, V), seeds and steps (B) of the noise, banned (V) or null, tokens and logps (B). A word's score is its
   probability over its exponential noise, or without a temperature its logit. */
void sample_tokens(const float *logits, const int32_t *seeds, const int32_t *steps, const uint8_t *banned,
                   int32_t *tokens, float *logps, float temperature, int64_t B, int64_t V) {
    const float colder = temperature > 0 ? 1 / temperature : 1;
    #pragma omp parallel for if (B * V > WORTHWHILE)
    for (int64_t b = 0; b < B; b++) {
        const float *row = logits + b * V;
        const uint32_t key = hash32(hash32(seeds[b]) ^ (steps[b] * 0x9E3779B1u));
        float highest = -FLT_MAX, total = 0, best = -FLT_MAX;
        int64_t token = 0;
        for (int64_t v = 0; v < V; v++) highest = larger(highest, row[v] * colder);
        for (int64_t start = 0; start < V; start += TILE) {
            const int64_t count = smaller(V - start, TILE);
            const float *here = row + start;
            float scores[TILE];
            for (int64_t i = 0; i < count; i++) {
                scores[i] = expf(here[i] * colder - highest);
                total += scores[i];
            }
            for (int64_t i = 0; i < count; i++) {
                const float u = (hash32(hash32(start + i) ^ key) + 0.5f) * 0x1p-32f;
                /* -log(1 - u); for small u, whose draws are the large ones, by its series */
                const float exponential = u < 1e-3f ? u * (1 + u * (0.5f + u / 3)) : -logf(larger(1 - u, 1e-30f));
                scores[i] = temperature > 0 ? scores[i] / exponential : here[i];
            }
            for (int64_t i = 0; i < count; i++)
                if (scores[i] > best && !(banned && banned[start + i])) best = scores[i], token = start + i;
        }
        tokens[b] = token;
        logps[b] = row[token] * colder - highest - logf(total);
    }
}

/* The weights of a layer (rollout.FlatWeights) and its pages; qkv_bias and gains may be null. */
typedef struct {
    const float *attention_norm, *qkv, *qkv_bias, *gains, *o, *mlp_norm, *gate_up, *down;
    float *kv;
} Layer;

/* What some steps know: the model, rollout.Slots, room for what is on its way. */
typedef struct {
    int64_t B, prompts, steps, layers, width, inner, H, C, D, V, page_size, G, columns, prompt_columns;
    float eps, temperature;
    const Layer *layer;
    const float *embed, *norm, *lm_head, *cosines, *sines; /* the last two (positions, D), half of sines negated */
    const uint8_t *banned;
    int32_t *token, *length, *start, *seed, *block_table, *members, *prompt_length, *prompt_block_table, *drawn;
    float *logps;
    float *x, *narrow, *wide;       /* (B, width), (B, width, H D or inner), (B, (H + 2C) D, 2 inner or V) */
    float *cosine, *sine, *logp;  /* of this step: (B, D), (B, D), (B) */
    int64_t *slot_mapping;                /* (B, 2C) */
} Steps;

/* Feed the newest token of the first B slots, draw the next ones. */
static void decode_step(const Steps *s, int64_t step) {
    const int64_t B = s->B, H = s->H, C = s->C, D = s->D, heads = H + 2 * C, width = s->width, inner = s->inner;
    for (int64_t b = 0; b < B; b++) {
        const int64_t length = s->length[b]++, position = s->start[b] + length;
        const int64_t page = s->block_table[b * s->columns + length / s->page_size], offset = length % s->page_size;
        memcpy(s->x + b * width, s->embed + s->token[b] * width, width * sizeof(float));
        memcpy(s->cosine + b * D, s->cosines + position * D, D * sizeof(float));
        memcpy(s->sine + b * D, s->sines + position * D, D * sizeof(float));
        for (int64_t c = 0; c < 2 * C; c++) s->slot_mapping[b * 2 * C + c] = (page * 2 * C + c) * s->page_size + offset;
    }
    for (const Layer *w = s->layer; w < s->layer + s->layers; w++) {
        rms_norm(s->x, w->attention_norm, s->narrow, s->eps, B, width);
        linear(s->narrow, w->qkv, w->qkv_bias, 0, s->wide, B, heads * D, width);
        norm_rope_append(s->wide, w->gains, s->cosine, s->sine, w->kv, s->slot_mapping, s->eps, B, H, C, D);
        decode_attention(s->wide, heads * D, w->kv, s->narrow, s->page_size, H, C, D, 1 / sqrtf(D), s->members,
                         s->prompts, s->G, s->prompt_length, s->prompt_block_table, s->prompt_columns, s->length, s->block_table,
                         s->columns);
        linear(s->narrow, w->o, s->x, width, s->x, B, width, H * D);
        rms_norm(s->x, w->mlp_norm, s->narrow, s->eps, B, width);
        linear(s->narrow, w->gate_up, 0, 0, s->wide, B, 2 * inner, width);
        silu_mul(s->wide, s->narrow, B, inner);
        linear(s->narrow, w->down, s->x, width, s->x, B, width, inner);
    }
    rms_norm(s->x, s->norm, s->narrow, s->eps, B, width);
    linear(s->narrow, s->lm_head, 0, 0, s->wide, B, s->V, width);
    sample_tokens(s->wide, s->seed, s->length, s->banned, s->token, s->logp, s->temperature, B, s->V);
    for (int64_t b = 0; b < B; b++) {
        s->drawn[b * s->steps + step] = s->token[b];
        s->logps[b * s->steps + step] = s->logp[b];
    }
}

void decode_steps(const Steps *s) {
    for (int64_t step = 0; step < s->steps; step++) decode_step(s, step);
}

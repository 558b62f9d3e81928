// What a decoder layer does between its matrix products, for one new token of each of several conversations, and the
// rotation of a whole piece of a prompt.
//
// attend: attention of one token over its conversation's cache, split over the cache so that one conversation keeps a
// whole GPU busy (flash decoding: https://crfm.stanford.edu/2023/10/12/flashdecoding.html). The block that has the new
// token's place rotates and stores its key and value; the last block to finish a conversation's head joins the parts.
//
// Made for: DIM (of a head, 8 times a power of two up to 256), HALF, and for attend HEADS (query heads a block takes, of
// those that share a head of keys), SPLIT (cached tokens a block takes) and STORED (whether `store` came before).

#ifndef DIM
#define DIM 128
#define HEADS 1
#define SPLIT 256
#define STORED 0
#endif
#define THREADS 256
#define LANES (DIM / 8)
#define AT_ONCE (THREADS / LANES)
#define EARLY (SPLIT < AT_ONCE ? 1 : SPLIT < 4 * AT_ONCE ? SPLIT / AT_ONCE : 4)

static __device__ __forceinline__ float rounded(float value) { return widened(narrowed(value)); }

static __device__ __forceinline__ void unpack(float *to, uint4 from) {
    const u32 words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = widened((u16)words[i]);
        to[2 * i + 1] = widened((u16)(words[i] >> 16));
    }
}

static __device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    return value;
}

static __device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int step = 16; step; step /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
    return value;
}

// out (rows, width) = x / sqrt(mean(x^2) + eps) * weight, a row a block of 1,024 threads. width: a multiple of 8, at
// most 32,768.
extern "C" __global__ void __launch_bounds__(1024)
rms_norm(const u16 *__restrict__ x, const u16 *__restrict__ weight, u16 *__restrict__ out, int width, float eps) {
    let_next_start();
    __shared__ float sums[32];
    await_previous();
    const uint4 *from = (const uint4 *)(x + (size_t)blockIdx.x * width);
    uint4 kept[4];
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = i * 1024 + threadIdx.x;
        if (at * 8 < width) {
            float values[8];
            kept[i] = from[at];
            unpack(values, kept[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += values[j] * values[j];
        }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    const float scale = rsqrtf(warp_sum(sums[threadIdx.x % 32]) / width + eps);
    uint4 *to = (uint4 *)(out + (size_t)blockIdx.x * width);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = i * 1024 + threadIdx.x;
        if (at * 8 < width) {
            float values[8], by[8];
            u32 words[4];
            unpack(values, kept[i]);
            unpack(by, __ldg((const uint4 *)weight + at));
#pragma unroll
            for (int j = 0; j < 4; j++)
                words[j] = narrowed(rounded(values[2 * j] * scale) * by[2 * j]) |
                           (u32)narrowed(rounded(values[2 * j + 1] * scale) * by[2 * j + 1]) << 16;
            to[at] = make_uint4(words[0], words[1], words[2], words[3]);
        }
    }
}

// out (rows, width) = silu(gate) * up of x (rows, 2 * width), gates first. width: a multiple of 8.
extern "C" __global__ void __launch_bounds__(256) gate(const u16 *__restrict__ x, u16 *__restrict__ out, int width) {
    const int at = (blockIdx.y * 256 + threadIdx.x) * 8;
    if (at >= width) return;
    const u16 *from = x + (size_t)blockIdx.x * 2 * width + at;
    float gates[8], ups[8];
    u32 words[4];
    unpack(gates, *(const uint4 *)from);
    unpack(ups, *(const uint4 *)(from + width));
#pragma unroll
    for (int i = 0; i < 8; i++) gates[i] = rounded(gates[i] / (1.f + __expf(-gates[i]))) * ups[i];
#pragma unroll
    for (int i = 0; i < 4; i++) words[i] = narrowed(gates[2 * i]) | (u32)narrowed(gates[2 * i + 1]) << 16;
    *(uint4 *)(out + (size_t)blockIdx.x * width + at) = make_uint4(words[0], words[1], words[2], words[3]);
}

struct Rotary {
    const float *table;  // (window, pairs, 2): cosine and sine
    int pairs, interleaved;
};

// One head by one warp: normalized where there is a weight, rotated, in float32 at `to`.
static __device__ void rotated(const u16 *from, const u16 *norm, float eps, Rotary rotary, int place, float *to) {
    const int lane = threadIdx.x % 32;
    float scale = 1.f;
    if (norm) {
        float sum = 0.f;
        for (int i = lane; i < DIM; i += 32) sum += widened(from[i]) * widened(from[i]);
        scale = rsqrtf(warp_sum(sum) / DIM + eps);
    }
    for (int i = lane; i < DIM; i += 32) {
        const float value = widened(from[i]);
        to[i] = norm ? rounded(rounded(value * scale) * widened(norm[i])) : value;
    }
    __syncwarp();
    for (int pair = lane; pair < rotary.pairs; pair += 32) {
        const int one = rotary.interleaved ? 2 * pair : pair, other = rotary.interleaved ? one + 1 : pair + rotary.pairs;
        const float2 turn = ((const float2 *)rotary.table)[(size_t)place * rotary.pairs + pair];
        const float a = to[one], b = to[other];
        to[one] = rounded(a * turn.x - b * turn.y);
        to[other] = rounded(b * turn.x + a * turn.y);
    }
    __syncwarp();
}

// qkv (rows, heads * DIM): pieces of prompts, queries, keys and values side by side. Queries are rotated into
// queries (rows, query heads, DIM); keys, rotated, and values go to each row's place in its slot of the caches
// (slots, kv heads, window, DIM), where it has one. A warp a head.
extern "C" __global__ void __launch_bounds__(128)
rotate_and_store(const u16 *__restrict__ qkv, const float *table, int pairs, int interleaved, const u16 *q_norm,
                 const u16 *k_norm, float eps, const int *__restrict__ places, const int *__restrict__ slots,
                 u16 *queries, u16 *keys, u16 *values, int queried, int kv_heads, int window) {
    __shared__ float wide[4][DIM];
    const int heads = queried + 2 * kv_heads, head = blockIdx.x * 4 + threadIdx.x / 32, row = blockIdx.y;
    const int place = places[row], slot = slots[row];
    if (head >= heads || (slot < 0 && head >= queried)) return;
    const u16 *from = qkv + ((size_t)row * heads + head) * DIM;
    const size_t of = (size_t)slot * kv_heads + (head - queried) % kv_heads;
    float *mine = wide[threadIdx.x / 32];
    u16 *to = head < queried ? queries + ((size_t)row * queried + head) * DIM
                             : (head < queried + kv_heads ? keys : values) + (of * window + place) * DIM;
    if (head < queried + kv_heads) {
        rotated(from, head < queried ? q_norm : k_norm, eps, {table, pairs, interleaved}, place, mine);
        for (int i = threadIdx.x % 32; i < DIM; i += 32) to[i] = narrowed(mine[i]);
    } else {
        for (int i = threadIdx.x % 32; i < DIM; i += 32) to[i] = from[i];
    }
}

// Keys, rotated, and values of rows that may be neighbours in one conversation, into the caches, before any of them
// attends to the others. Arguments as for attend. A warp a head.
extern "C" __global__ void __launch_bounds__(128)
store(const u16 *__restrict__ qkv, const float *table, int pairs, int interleaved, const u16 *k_norm, float eps,
      const int *__restrict__ lengths, const int *__restrict__ slots, u16 *keys, u16 *values, int queried, int kv_heads,
      int window) {
    let_next_start();
    __shared__ float wide[4][DIM];
    await_previous();
    const int head = blockIdx.x * 4 + threadIdx.x / 32, row = blockIdx.y, slot = slots[row], place = lengths[row];
    if (head >= 2 * kv_heads || slot < 0) return;
    const u16 *from = qkv + ((size_t)row * (queried + 2 * kv_heads) + queried + head) * DIM;
    const size_t at = (((size_t)slot * kv_heads + head % kv_heads) * window + place) * DIM;
    if (head < kv_heads) {
        float *mine = wide[threadIdx.x / 32];
        rotated(from, k_norm, eps, {table, pairs, interleaved}, place, mine);
        for (int i = threadIdx.x % 32; i < DIM; i += 32) keys[at + i] = narrowed(mine[i]);
    } else {
        for (int i = threadIdx.x % 32; i < DIM; i += 32) values[at + i] = from[i];
    }
}

static __device__ __forceinline__ void add_weighted(float (*acc)[8], uint4 from, const float (*scores)[SPLIT], int at) {
    float v[8];
    unpack(v, from);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        const float weight = scores[h][at];
#pragma unroll
        for (int i = 0; i < 8; i++) acc[h][i] += weight * v[i];
    }
}

// One new token of `rows` conversations: out (rows, query heads * DIM). qkv as above; lengths: tokens before the new
// one; slots: where in the caches (slots, kv heads, window, DIM), negative for a row that is not there.
// parts (rows, query heads, splits, DIM + 2), counters (rows, query heads / HEADS), zero before and after: room to join
// in. share: query heads for each head of keys, a multiple of HEADS. Grid: (splits, query heads / HEADS, rows).
extern "C" __global__ void __launch_bounds__(THREADS)
attend(const u16 *__restrict__ qkv, const float *table, int pairs, int interleaved, const u16 *q_norm, const u16 *k_norm,
       float eps, float scaling, const int *__restrict__ lengths, const int *__restrict__ slots, u16 *keys, u16 *values,
       int share, int window, u16 *out, float *parts, u32 *counters) {
    let_next_start();
    __shared__ float queries[HEADS][DIM];
    __shared__ float scores[HEADS][SPLIT];
    __shared__ float sums[THREADS / 32][HEADS][DIM];
    __shared__ float most[HEADS], total[HEADS];
    __shared__ bool joins;
    await_previous();
    const int split = blockIdx.x, query = blockIdx.y * HEADS, row = blockIdx.z, heads = gridDim.y * HEADS;
    const int kv = query / share, kv_heads = heads / share;
    const int slot = slots[row], place = lengths[row], first = split * SPLIT;
    if (slot < 0 || first > place) return;
    const int count = min(SPLIT, place + 1 - first), active = place / SPLIT + 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u16 *own = qkv + (size_t)row * (heads + 2 * kv_heads) * DIM;
    const size_t cached = ((size_t)slot * kv_heads + kv) * window * DIM;
    const Rotary rotary = {table, pairs, interleaved};

    for (int head = warp; head < HEADS; head += THREADS / 32) {
        rotated(own + (query + head) * DIM, q_norm, eps, rotary, place, queries[head]);
        for (int i = lane; i < DIM; i += 32) queries[head][i] *= scaling;
    }
    if (!STORED && split == active - 1 && warp == THREADS / 32 - 1) {
        float *wide = sums[0][0];
        rotated(own + (heads + kv) * DIM, k_norm, eps, rotary, place, wide);
        for (int i = lane; i < DIM; i += 32) {
            keys[cached + (size_t)place * DIM + i] = narrowed(wide[i]);
            values[cached + (size_t)place * DIM + i] = own[(heads + kv_heads + kv) * DIM + i];
        }
    }
    __syncthreads();

    const int which = threadIdx.x / LANES, part = threadIdx.x % LANES;
    const u16 *key = keys + cached + (size_t)first * DIM + part * 8;
    const u16 *value = values + cached + (size_t)first * DIM + part * 8;
    // The first values are on their way while keys are multiplied.
    uint4 early[EARLY];
#pragma unroll
    for (int i = 0; i < EARLY; i++)
        early[i] = which + i * AT_ONCE < count ? *(const uint4 *)(value + (size_t)(which + i * AT_ONCE) * DIM)
                                               : make_uint4(0, 0, 0, 0);
    {
        float q[HEADS][8];
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
            for (int i = 0; i < 8; i++) q[h][i] = queries[h][part * 8 + i];
#pragma unroll 4
        for (int at = which; at - which < count; at += AT_ONCE) {
            float k[8] = {};
            if (at < count) unpack(k, *(const uint4 *)(key + (size_t)at * DIM));
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float dot = 0.f;
#pragma unroll
                for (int i = 0; i < 8; i++) dot += q[h][i] * k[i];
#pragma unroll
                for (int step = LANES / 2; step; step /= 2) dot += __shfl_xor_sync(~0u, dot, step);
                if (part == 0 && at < count) scores[h][at] = dot;
            }
        }
    }
    __syncthreads();
    for (int head = warp; head < HEADS; head += THREADS / 32) {
        float top = -1e30f, sum = 0.f;
        for (int at = lane; at < count; at += 32) top = fmaxf(top, scores[head][at]);
        top = warp_max(top);
        for (int at = lane; at < count; at += 32) {
            const float weight = __expf(scores[head][at] - top);
            scores[head][at] = weight;
            sum += weight;
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            most[head] = top;
            total[head] = sum;
        }
    }
    __syncthreads();

    float acc[HEADS][8] = {};
#pragma unroll
    for (int i = 0; i < EARLY; i++)
        if (which + i * AT_ONCE < count) add_weighted(acc, early[i], scores, which + i * AT_ONCE);
#pragma unroll 4
    for (int at = which + EARLY * AT_ONCE; at < count; at += AT_ONCE)
        add_weighted(acc, *(const uint4 *)(value + (size_t)at * DIM), scores, at);
#pragma unroll
    for (int h = 0; h < HEADS; h++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int step = LANES; step < 32; step *= 2) acc[h][i] += __shfl_xor_sync(~0u, acc[h][i], step);
            if (lane < LANES) sums[warp][h][part * 8 + i] = acc[h][i];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < HEADS * DIM; i += THREADS) {
        const int h = i / DIM, dim = i % DIM;
        float sum = 0.f;
#pragma unroll
        for (int other = 0; other < THREADS / 32; other++) sum += sums[other][h][dim];
        if (active == 1) {
            out[((size_t)row * heads + query + h) * DIM + dim] = narrowed(sum / total[h]);
        } else {
            float *to = parts + (((size_t)row * heads + query + h) * gridDim.x + split) * (DIM + 2);
            to[dim] = sum;
            if (dim == 0) {
                to[DIM] = most[h];
                to[DIM + 1] = total[h];
            }
        }
    }
    __syncthreads();
    if (active == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) joins = atomicInc(counters + row * gridDim.y + blockIdx.y, active - 1) == active - 1;
    __syncthreads();
    if (!joins) return;
    __threadfence();
    for (int i = threadIdx.x; i < HEADS * DIM; i += THREADS) {
        const int h = i / DIM, dim = i % DIM;
        const float *from = parts + ((size_t)row * heads + query + h) * gridDim.x * (DIM + 2);
        float top = -1e30f, sum = 0.f, over = 0.f;
        for (int s = 0; s < active; s++) top = fmaxf(top, __ldcg(from + s * (DIM + 2) + DIM));
        for (int s = 0; s < active; s++) {
            const float weight = __expf(__ldcg(from + s * (DIM + 2) + DIM) - top);
            sum += weight * __ldcg(from + s * (DIM + 2) + dim);
            over += weight * __ldcg(from + s * (DIM + 2) + DIM + 1);
        }
        out[((size_t)row * heads + query + h) * DIM + dim] = narrowed(sum / over);
    }
}

// Products with weights of 4 bits, for few rows of input: NF4 (QLoRA: Dettmers et al., https://arxiv.org/abs/2305.14314)
// or whole numbers packed by rows.
//
// A weight is an index into 16 values, two in a byte, and every 64 of a row share a scale. Decoding by arithmetic
// would take more integer instructions a weight than there is time for while the memory delivers the next one (an
// H200 delivers 32 weights a cycle to each multiprocessor, which has 64 integer lanes). So a byte is looked up: a
// table in shared memory holds both of its values, ready as one register of a matrix instruction, once for each lane
// of a warp, so that no two lanes ever meet in a bank.
//
// The weights lie in the order in which the lanes of a warp take them (see tiled() in nf4.py): 16 rows by 64 columns
// are 512 bytes in one piece. A group of 8 warps takes 512 columns of a row tile a turn, a warp 64 of them. A block has
// its share of the row tiles, and its groups have even shares of the turns of those, wherever that cuts a tile. The parts
// of a tile are added up in their order, so that the same input always gives the same sum. (Cutting tiles between blocks
// as well, "stream-K", https://arxiv.org/abs/2301.03598, balances better and was slower: joining costs 3 microseconds.)
//
// Made for: NT tiles of 8 input rows; MT row tiles at once, the second half of the rows (PAIR: gate and up projections,
// of which silu(gate) * up is written); HALF: float16, else bfloat16.

#ifndef NT
#define NT 1
#define MT 1
#define PAIR 0
#define GROUPS 4
#define AHEAD 2
#endif
#define WARPS 8
#define THREADS (32 * WARPS)
#define SUMS (MT * NT * 128)

static __device__ __forceinline__ u32 packed(float low, float high) {
    u32 both;
    asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

static __device__ __forceinline__ float half_to_float(u16 value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
    return wide;
}

static __device__ __forceinline__ void multiply(float *sum, const u32 *a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ uint4 load_once(const uint4 *at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
}

// Both values of a byte, from the table at the shared address `table`, which has its lower 15 bits free but for the
// lane's. `byte` is where the byte stands in the word.
template <int byte> static __device__ __forceinline__ u32 looked_up(u32 table, u32 word) {
    const u32 row = byte == 0 ? word << 7 : word >> (8 * byte - 7);
    u32 both;
    asm("ld.shared.u32 %0, [%1];" : "=r"(both) : "r"((row & 0x7f80) | table));
    return both;
}

// 16 rows by 16 columns, the j-th of the four that a lane's 16 bytes have a part in.
template <int j> static __device__ __forceinline__ void look_up(u32 *a, u32 table, uint4 bytes) {
    const u32 upper = j < 2 ? bytes.x : bytes.y, lower = j < 2 ? bytes.z : bytes.w;
    a[0] = looked_up<2 * (j % 2)>(table, upper);
    a[1] = looked_up<2 * (j % 2)>(table, lower);
    a[2] = looked_up<2 * (j % 2) + 1>(table, upper);
    a[3] = looked_up<2 * (j % 2) + 1>(table, lower);
}

static __device__ __forceinline__ void add_scaled(float *acc, const float *c, u32 scales) {
    const float upper = half_to_float((u16)scales), lower = half_to_float((u16)(scales >> 16));
    acc[0] += c[0] * upper;
    acc[1] += c[1] * upper;
    acc[2] += c[2] * lower;
    acc[3] += c[3] * lower;
}

struct Output {
    const float *factor;
    const u16 *bias, *residual;
    u16 *out;
    int rows, m, half;
};

// Add up `count` partial sums of a tile, each of (MT, input rows, 16) floats, and write what comes out.
static __device__ void finish(const float *sums, int count, int tile, const Output &to, int thread) {
    for (int i = thread; i < (PAIR ? 1 : MT) * NT * 128; i += THREADS) {
        const int row = i % 16, input = (i / 16) % (NT * 8), at = tile + i / (NT * 128) * to.half;
        if (input >= to.m) continue;
        float value = 0.f, up = 0.f;
        for (int part = 0; part < count; part++) {
            value += sums[part * SUMS + i];
            if (PAIR) up += sums[part * SUMS + NT * 128 + i];
        }
        value *= to.factor[at];
        const int place = at * 16 + row;
        if (to.bias) value += widened(to.bias[place]);
        if (PAIR) {
            value = widened(narrowed(value));
            up = widened(narrowed(up * to.factor[at + to.half]));
            value = up * widened(narrowed(value / (1.f + __expf(-value))));
        }
        const size_t where = (size_t)input * to.rows + place;
        if (to.residual) value = widened(narrowed(value)) + widened(to.residual[where]);
        to.out[where] = narrowed(value);
    }
}

// Whether a turn is inside a tile, not at its beginning.
static __device__ __forceinline__ bool cuts(int turn, int tile, int turns) {
    return turn / turns == tile && turn % turns != 0;
}

// out (m, rows) = x (m, columns) times the weights (rows, columns), plus bias (rows) and residual (m, rows) where given.
// PAIR: the weights are (2 * rows, columns), gate above up; out = silu(gate) * up.
// weights: (row tiles, 8 * turns, 32) of 16 bytes; scales: (row tiles, 8 * turns, 8) of two float16, to be multiplied
// by factor (row tiles), zero beyond the columns; code: 16 values.
extern "C" __global__ void __launch_bounds__(THREADS * GROUPS, 1)
nf4_matmul(const uint4 *__restrict__ weights, const u32 *__restrict__ scales, const float *__restrict__ factor,
           const float *__restrict__ code, const u16 *__restrict__ x, const u16 *__restrict__ bias,
           const u16 *residual, u16 *out, int rows, int columns, int turns, int m) {
    let_next_start();
    // The table first, at an address whose lower 15 bits are zero: the launch asks for 32 KB more than is used.
    extern __shared__ u32 shared[];
    u32 start;
    asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(start) : "l"(shared));
    const u32 aligned = (start + 0x7fff) & ~0x7fffu;
    u32 *lookup = shared + (aligned - start) / 4;
    const int group = threadIdx.x / THREADS, inner = threadIdx.x % THREADS;
    const int warp = inner / 32, lane = inner % 32, g = lane / 4, t = lane % 4;
    const u32 table = aligned + lane * 4;
    // Sums of each warp; then, for each tile that is cut, those of each group. A tile is named by the first cut in it,
    // the place where one group takes over from another.
    float *sums = (float *)(lookup + 8192) + group * WARPS * SUMS;
    float *parts = (float *)(lookup + 8192) + GROUPS * WARPS * SUMS;

    const int half = PAIR ? rows / 16 : rows / 16 / MT, total = half * turns;
    const int begin = (long long)blockIdx.x * half / gridDim.x * turns;
    const int all = (long long)(blockIdx.x + 1) * half / gridDim.x * turns - begin;
    const int from = begin + all * group / GROUPS, to = begin + all * (group + 1) / GROUPS;
    const Output output = {factor, bias, residual, out, rows, m, half};

    const uint4 *w = weights + ((size_t)from * WARPS + warp) * 32 + lane;
    const u32 *s = scales + ((size_t)from * WARPS + warp) * 8 + g;
    const size_t next_half = (size_t)total * WARPS;
    uint4 ahead[AHEAD][MT];
    u32 scale[AHEAD][MT];
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
        if (from + u < to)
#pragma unroll
            for (int mt = 0; mt < MT; mt++) {
                ahead[u][mt] = load_once(w + u * WARPS * 32 + mt * next_half * 32);
                scale[u][mt] = __ldg(s + u * WARPS * 8 + mt * next_half * 8);
            }
    for (int i = threadIdx.x; i < 8192; i += THREADS * GROUPS)
        lookup[i] = packed(code[i >> 9], code[(i >> 5) & 15]);
    for (int i = threadIdx.x; i < (GROUPS - 1) * GROUPS * SUMS; i += THREADS * GROUPS) parts[i] = 0.f;
    __syncthreads();
    await_previous();

    // Lanes of input rows that are not there repeat the last one; nobody writes what they add up.
    const u16 *row[NT];
#pragma unroll
    for (int nt = 0; nt < NT; nt++) row[nt] = x + (size_t)min(nt * 8 + g, m - 1) * columns + t * 8;
    float acc[MT][NT][4] = {};
    int tile = from / turns, turn = from % turns;
    bool whole = turn == 0;

    for (int done = from; done < to; done += AHEAD) {
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (done + u >= to) break;
            const int column = (turn * WARPS + warp) * 64, inside = column < columns ? column : 0;
#if NT <= 2
            uint4 x0[NT], x1[NT];
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                x0[nt] = *(const uint4 *)(row[nt] + inside);
                x1[nt] = *(const uint4 *)(row[nt] + inside + 32);
            }
#pragma unroll
            for (int mt = 0; mt < MT; mt++) {
                float c[NT][4] = {};
                u32 a[4];
#define STEP(j, half_of, first_word, second_word)                                                                       \
    look_up<j>(a, table, ahead[u][mt]);                                                                                 \
    _Pragma("unroll") for (int nt = 0; nt < NT; nt++)                                                                   \
        multiply(c[nt], a, half_of[nt].first_word, half_of[nt].second_word);
                STEP(0, x0, x, y)
                STEP(1, x0, z, w)
                STEP(2, x1, x, y)
                STEP(3, x1, z, w)
#undef STEP
#pragma unroll
                for (int nt = 0; nt < NT; nt++) add_scaled(acc[mt][nt], c[nt], scale[u][mt]);
            }
#else
            u32 a[MT][4][4];
#pragma unroll
            for (int mt = 0; mt < MT; mt++) {
                look_up<0>(a[mt][0], table, ahead[u][mt]);
                look_up<1>(a[mt][1], table, ahead[u][mt]);
                look_up<2>(a[mt][2], table, ahead[u][mt]);
                look_up<3>(a[mt][3], table, ahead[u][mt]);
            }
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const uint4 x0 = *(const uint4 *)(row[nt] + inside), x1 = *(const uint4 *)(row[nt] + inside + 32);
#pragma unroll
                for (int mt = 0; mt < MT; mt++) {
                    float c[4] = {};
                    multiply(c, a[mt][0], x0.x, x0.y);
                    multiply(c, a[mt][1], x0.z, x0.w);
                    multiply(c, a[mt][2], x1.x, x1.y);
                    multiply(c, a[mt][3], x1.z, x1.w);
                    add_scaled(acc[mt][nt], c, scale[u][mt]);
                }
            }
#endif
            if (done + u + AHEAD < to)
#pragma unroll
                for (int mt = 0; mt < MT; mt++) {
                    ahead[u][mt] = load_once(w + (u + AHEAD) * WARPS * 32 + mt * next_half * 32);
                    scale[u][mt] = __ldg(s + (u + AHEAD) * WARPS * 8 + mt * next_half * 8);
                }
            turn++;
            if (turn == turns || done + u + 1 == to) {
                // A tile is over, or this group's part of it. Neighbours in a tile's rows lie together, as they are
                // written out.
                float *mine = sums + warp * SUMS;
#pragma unroll
                for (int mt = 0; mt < MT; mt++)
#pragma unroll
                    for (int nt = 0; nt < NT; nt++)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            mine[(mt * NT * 8 + nt * 8 + 2 * t + i % 2) * 16 + g + 8 * (i / 2)] = acc[mt][nt][i];
                            acc[mt][nt][i] = 0.f;
                        }
                asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(THREADS) : "memory");
                if (whole && turn == turns) {
                    finish(sums, WARPS, tile, output, inner);
                } else {
                    int cut = 1;
                    while (!cuts(begin + all * cut / GROUPS, tile, turns)) cut++;
                    for (int i = inner; i < SUMS; i += THREADS) {
                        float value = 0.f;
                        for (int other = 0; other < WARPS; other++) value += sums[other * SUMS + i];
                        parts[((cut - 1) * GROUPS + group) * SUMS + i] = value;
                    }
                }
                asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(THREADS) : "memory");
                turn = 0;
                tile++;
                whole = true;
            }
        }
        w += AHEAD * WARPS * 32;
        s += AHEAD * WARPS * 8;
    }

    __syncthreads();
    for (int cut = group + 1; cut < GROUPS; cut += GROUPS) {
        const int at = begin + all * cut / GROUPS, cut_tile = at / turns;
        const bool first = cut == 1 || !cuts(begin + all * (cut - 1) / GROUPS, cut_tile, turns);
        if (cuts(at, cut_tile, turns) && first) finish(parts + (cut - 1) * GROUPS * SUMS, GROUPS, cut_tile, output, inner);
    }
}

// The same weights as rows of numbers, for products with many input rows: out (tiles * 16, columns). A warp loads several
// blocks before it decodes the first, so that enough is under way to fill the memory.
#define LOADS 4
extern "C" __global__ void __launch_bounds__(256)
nf4_widen(const uint4 *__restrict__ weights, const u32 *__restrict__ scales, const float *__restrict__ factor,
          const float *__restrict__ code, u16 *__restrict__ out, int tiles, int columns, int blocks) {
    __shared__ float values[16 * 32];
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 filled = columns / 64, turns = (filled + LOADS - 1) / LOADS;
    for (int i = threadIdx.x; i < 512; i += 256) values[i] = code[i >> 5];
    __syncthreads();
    const u32 all = tiles * turns, step = gridDim.x * 8;
    for (u32 at = blockIdx.x * 8 + threadIdx.x / 32; at < all; at += step) {
        const u32 tile = at / turns, block = at % turns * LOADS;
        const size_t from = (size_t)tile * blocks + block;
        const float by = factor[tile];
        uint4 bytes[LOADS];
        u32 both[LOADS];
#pragma unroll
        for (int u = 0; u < LOADS; u++)
            if (block + u < filled) {
                bytes[u] = load_once(weights + (from + u) * 32 + lane);
                both[u] = __ldg(scales + (from + u) * 8 + g);
            }
#pragma unroll
        for (int u = 0; u < LOADS; u++) {
            if (block + u >= filled) break;
            const u32 words[4] = {bytes[u].x, bytes[u].y, bytes[u].z, bytes[u].w};
            const float scale[2] = {half_to_float((u16)both[u]) * by, half_to_float((u16)(both[u] >> 16)) * by};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 wide[8];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const u32 byte = words[half * 2 + i / 4] >> (8 * (i % 4));
                    wide[i] = packed(values[((byte >> 4) & 15) * 32 + lane] * scale[half],
                                     values[(byte & 15) * 32 + lane] * scale[half]);
                }
                uint4 *to = (uint4 *)(out + ((size_t)tile * 16 + half * 8 + g) * columns + (block + u) * 64 + t * 8);
                to[0] = make_uint4(wide[0], wide[1], wide[2], wide[3]);
                to[4] = make_uint4(wide[4], wide[5], wide[6], wide[7]);
            }
        }
    }
}

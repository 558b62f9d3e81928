// What both kernel files need: numbers of 16 bits, and the overlap of kernels. HALF: float16, else bfloat16.

typedef unsigned int u32;
typedef unsigned short u16;

#ifndef HALF
#define HALF 0
#endif
#if HALF
#define TYPE "f16"
#else
#define TYPE "bf16"
#endif

static __device__ __forceinline__ float widened(u16 value) {
    float wide;
#if HALF
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
#else
    wide = __uint_as_float((u32)value << 16);
#endif
    return wide;
}

static __device__ __forceinline__ u16 narrowed(float value) {
    u16 narrow;
    asm("cvt.rn." TYPE ".f32 %0, %1;" : "=h"(narrow) : "f"(value));
    return narrow;
}

// The kernel after this one may start to load what does not depend on it; nothing before this is awaited until now.
static __device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
static __device__ __forceinline__ void await_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

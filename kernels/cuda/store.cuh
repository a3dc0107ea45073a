// What becomes of a product's sums: where they start, and the one rounding at their store.
//
// Knows nothing of tiles. Start at `Kind`.
#pragma once
#include "device.cuh"
#include "tile.cuh"

namespace store {

enum Kind {
    BF16, // out (bf16) = sums, rounded once
    F32,  // out = sums
    ADD,  // out = add + sums, one addition at the end (the residual stream); `add` may be `out`
    ONTO, // the sums go on from those in out
};

template <Kind KIND, int MT, int NT>
NS_DEV void start(float (&sums)[MT][NT][4], const void *out, int row, int column, int rows, int columns) {
    tile::each_pair(sums, row, column, [&](int r, int c, float &first, float &second) {
        first = second = 0.0f;
        if (KIND == ONTO && r < rows && c < columns) {
            const float *from = (const float *)out + (r * columns + c);
            first = from[0];
            second = from[1];
        }
    });
}

template <Kind KIND, int MT, int NT>
NS_DEV void finish(float (&sums)[MT][NT][4], void *out, const float *add, int row, int column, int rows, int columns) {
    tile::each_pair(sums, row, column, [&](int r, int c, float &first, float &second) {
        if (r >= rows || c >= columns) return;
        const int at = r * columns + c;
        if (KIND == BF16) {
            *(u32 *)((bf16_t *)out + at) = ns_pack(first, second);
            return;
        }
        *(u32x2 *)((float *)out + at) = KIND == ADD ? u32x2{ns_f2u(add[at] + first), ns_f2u(add[at + 1] + second)}
                                                    : u32x2{ns_f2u(first), ns_f2u(second)};
    });
}

} // namespace store

// The last of some blocks to be ready goes on with what all of them made: no second launch, and nobody waits.
//
// Which block is the last is chance, so what it computes must not depend on that. Start at `ns_last`.
#pragma once
#include "device.cuh"

// True in every thread of the last of `blocks` blocks that come here, which sees what they all wrote. `ticket` is 0 before and
// after; `told` is shared.
NS_DEV bool ns_last(u32* ticket, int blocks, u32& told) {
  __syncthreads();
  // A fence of one thread after a barrier is one of all that the block did before it.
  if (threadIdx.x == 0) {
    ns_fence();
    told = ns_add(ticket, 1) == (u32)(blocks - 1 - NS_PLANTED(15));
    ns_fence();
    if (told) *ticket = 0;
  }
  __syncthreads();
  return told;
}

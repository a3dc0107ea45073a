// The paged cache of keys and values: who is where. RoPE writes it, attention reads it; nobody else computes an address in it.
//
// A layer has two pools, one of keys and one of values, of bf16, each laid out as
//
//     (page, kv_head, position in page: 64, head_dim)
//
// so that the keys of one head in one page are 64 * head_dim elements in a row: 8 or 16 KiB, what a tile of attention
// copies at once. A page number means the same place in the pools of every layer. A sequence owns a row of the page
// table (int, `pages_ld` entries a row): entry i is the page of its positions 64 * i .. 64 * i + 63.
//
// A page is NS_KV_PAGE positions at absolute positions; two are the block of keys of attention's fixed order of sums
// (contract C3): a split is NS_KV_SPLIT keys at absolute positions. Neither is a tuning knob: changing one changes bits.
// Positions that were never written may hold anything: attention reads positions below a sequence's length only.
#pragma once
#define NS_KV_PAGE 64
#define NS_KV_SPLIT 512
#define NS_KV_SPLIT_PAGES (NS_KV_SPLIT / NS_KV_PAGE)

// The first element of the keys (or values) of one head in one page.
NS_DEV long ns_kv_tile(int page, int kv_heads, int kv_head, int head_dim) {
  return ((long)page * kv_heads + kv_head) * NS_KV_PAGE * head_dim;
}

// The first element of the key (or value) of one head at one position of a sequence whose row of the page table is `pages`.
NS_DEV long ns_kv_row(const int* pages, int position, int kv_heads, int kv_head, int head_dim) {
  return ns_kv_tile(pages[position / NS_KV_PAGE], kv_heads, kv_head, head_dim) + (long)(position % NS_KV_PAGE) * head_dim;
}

//! Memory for weights, and for what passes write: side by side in blocks that ask the system for huge pages.
//!
//! A step of decoding reads every weight once. In pages of 4 KiB the processor then looks up an address for each 64 lines, and stops reading ahead
//! at each page's end; in pages of 2 MiB decoding one sequence is a quarter to a half faster. Most matrices of a small model are
//! smaller than such a page, therefore they share blocks. A block is given back when the last matrix in it is dropped. An adapter has a block of its
//! own, which is as large as it is and given back with it: versions come and go, the matrices stay. So has what all layers of
//! a pass go through ([`Buffer`]). Not here: what the numbers mean; and nothing depends on whether the system has huge pages to give.

use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

/// A huge page, to whose multiples blocks are aligned.
const PAGE: usize = 2 << 20;

/// At least a small page, on every system that has huge ones of that size.
const SMALL: usize = 64 << 10;

/// Bytes of a block, or more for a larger matrix. What nobody uses of it takes addresses, not memory.
const BLOCK: usize = 64 << 20;

/// Where a matrix may begin: at a cache line.
const LINE: usize = 64;

/// What a block of so many bytes is aligned to, and its size a multiple of.
fn unit(bytes: usize) -> usize {
    if bytes < PAGE / 2 { LINE } else { PAGE }
}

/// Most bytes that matrices of so many bytes leave empty in huge pages that they have begun: the last one of each block. Of two blocks that
/// follow each other, what is in both together is more than fits one.
pub fn unfilled(bytes: usize) -> usize {
    (2 * bytes / BLOCK + 1) * PAGE
}

/// Some memory of the system's allocator.
struct Block {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is used through `Numbers` only, whose parts of it do not overlap.
unsafe impl Send for Block {}
// SAFETY: as for `Send`.
unsafe impl Sync for Block {}

impl Block {
    /// Of at least so many bytes, in huge pages where it fills half of one.
    fn new(bytes: usize) -> Block {
        Block::sized(bytes.max(1).next_multiple_of(unit(bytes)), unit(bytes))
    }

    /// The same without more bytes than a line more.
    fn exact(bytes: usize) -> Block {
        let lines = bytes.max(1).checked_next_multiple_of(LINE);
        Block::sized(lines.unwrap_or(usize::MAX), unit(bytes))
    }

    fn sized(size: usize, unit: usize) -> Block {
        let Ok(layout) = Layout::from_size_align(size, unit) else {
            // What no address can reach cannot be allocated either.
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the size is not zero.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout);
        };
        #[cfg(target_os = "linux")]
        if unit == PAGE {
            use rustix::mm::{Advice, madvise};
            // An allocator gives memory again that was in use, in small pages, which stay so: they are given back, as far as they are this block's alone.
            let own = size / SMALL * SMALL;
            // A system without huge pages refuses, and the pages stay small.
            // SAFETY: the range is this block's, and nobody has written to it yet.
            let _ = unsafe { madvise(at.as_ptr().cast(), own, Advice::LinuxDontNeed) };
            // SAFETY: as above; the advice changes no content.
            let _ = unsafe { madvise(at.as_ptr().cast(), own, Advice::LinuxHugepage) };
        }
        Block { at, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody uses a part of it any more: each holds the block.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}

/// The block that is not full, if somebody still uses it, and how many of its bytes are taken.
static CURRENT: Mutex<(Weak<Block>, usize)> = Mutex::new((Weak::new(), 0));

/// A part of a block from an offset on, that nobody else gets.
fn take(bytes: usize) -> (Arc<Block>, usize) {
    let bytes = bytes.next_multiple_of(LINE);
    let mut current = CURRENT.lock();
    if let Some(block) = current.0.upgrade() {
        let first = current.1;
        if bytes <= block.layout.size() - first {
            current.1 = first + bytes;
            return (block, first);
        }
    }
    let block = Arc::new(Block::new(bytes.max(BLOCK)));
    // What has more room left is kept for the next.
    let (rest, old) = (block.layout.size() - bytes, &current.0);
    let old_rest = (old.upgrade()).map_or(0, |old| old.layout.size() - current.1);
    if rest > old_rest {
        *current = (Arc::downgrade(&block), bytes);
    }
    (block, 0)
}

/// Numbers for which all bits may be zero, and which need nothing when dropped.
///
/// # Safety
/// That is so, and they are aligned to a cache line at most.
pub(crate) unsafe trait Plain: Copy + Send + Sync {}

// SAFETY: a number.
unsafe impl Plain for f32 {}

/// A fixed number of values in such a block, all zero at first.
pub(crate) struct Numbers<T: Plain> {
    at: NonNull<T>,
    len: usize,
    /// Keeps the memory.
    _block: Arc<Block>,
}

// SAFETY: it owns its part of the block, as a vector does.
unsafe impl<T: Plain> Send for Numbers<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Plain> Sync for Numbers<T> {}

impl<T: Plain> Numbers<T> {
    /// In a block with others.
    pub(crate) fn zeros(len: usize) -> Numbers<T> {
        Numbers::within(len, take)
    }

    /// In a block of their own, which is given back with them.
    fn alone(len: usize) -> Numbers<T> {
        Numbers::within(len, |bytes| (Arc::new(Block::new(bytes)), 0))
    }

    /// Where `place` says, which gives a part of a block that nobody else has, as long as it is asked for, aligned to a line.
    fn within(len: usize, place: impl FnOnce(usize) -> (Arc<Block>, usize)) -> Numbers<T> {
        const { assert!(align_of::<T>() <= LINE) };
        let Ok(layout) = Layout::array::<T>(len) else {
            handle_alloc_error(Layout::new::<T>());
        };
        let (block, first) = place(layout.size());
        assert!(first <= block.layout.size() && layout.size() <= block.layout.size() - first);
        // SAFETY: `place` gave as many bytes from `first` on, aligned to a line, which nobody else has.
        let at = unsafe {
            let at = block.at.add(first).cast::<T>();
            at.write_bytes(0, len);
            at
        };
        Numbers {
            at,
            len,
            _block: block,
        }
    }
}

impl<T: Plain> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `within` initialised as many values, which live as long as the block, and only `self` reaches them.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T: Plain> Clone for Numbers<T> {
    fn clone(&self) -> Self {
        let mut same = Numbers::zeros(self.len);
        same.copy_from_slice(self);
        same
    }
}

/// Numbers that every step of decoding reads, but that are no matrix of the model: an adapter's. They are given back alone: in a block with
/// the model's matrices, which stay, a version that is gone would keep its memory.
pub struct Floats(Numbers<f32>);

impl Floats {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Floats {
        Floats(Numbers::alone(len))
    }

    /// Bytes of memory that so many take: whole huge pages, once they fill half of one.
    pub fn bytes(len: usize) -> usize {
        let bytes = len.saturating_mul(size_of::<f32>());
        bytes
            .checked_next_multiple_of(unit(bytes))
            .unwrap_or(usize::MAX)
    }
}

impl Clone for Floats {
    fn clone(&self) -> Self {
        let mut same = Floats::zeros(self.len());
        same.copy_from_slice(self);
        same
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// Numbers that keep their memory when they become fewer: alone, or beside others that are written in the same pass.
#[derive(Default)]
pub struct Buffer {
    room: Option<Numbers<f32>>,
    len: usize,
}

impl Buffer {
    /// Exactly `len` numbers; what was there before stays as far as it reaches, what is new is zero or was there once.
    pub fn fit(&mut self, len: usize) -> &mut [f32] {
        if self.room() < len {
            let mut room = Numbers::within(len, |bytes| (Arc::new(Block::exact(bytes)), 0));
            if let Some(old) = &self.room {
                room[..old.len()].copy_from_slice(old);
            }
            self.room = Some(room);
        }
        self.len = len;
        self
    }

    /// How many there is room for.
    fn room(&self) -> usize {
        self.room.as_ref().map_or(0, |room| room.len())
    }

    /// Gives each of some buffers room for so many numbers, in one block when one of them has less; what was in them is lost then. A pass over many
    /// layers goes through tens of megabytes again and again: in huge pages it finds them in less time.
    pub fn side_by_side(buffers: &mut [(&mut Buffer, usize)]) {
        if buffers.iter().all(|(buffer, len)| buffer.room() >= *len) {
            return;
        }
        // What no address can reach is refused by the allocator.
        let mut all = 0_usize;
        for (buffer, len) in &mut *buffers {
            *len = buffer.room().max(*len);
            *len = len.saturating_add(LINE / size_of::<f32>() - 1) / (LINE / size_of::<f32>());
            *len = len.saturating_mul(LINE / size_of::<f32>());
            all = all.saturating_add(*len);
            **buffer = Buffer::default();
        }
        let block = Arc::new(Block::exact(all.saturating_mul(size_of::<f32>())));
        let mut first = 0;
        for (buffer, len) in buffers {
            let place = |_| (block.clone(), first * size_of::<f32>());
            buffer.room = Some(Numbers::within(*len, place));
            first += *len;
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut same = Buffer::default();
        same.fit(self.len).copy_from_slice(self);
        same
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.room.as_ref().map_or(&[], |room| &room[..self.len])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.room
            .as_mut()
            .map_or(&mut [], |room| &mut room[..self.len])
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Buffer").field(&self.len).finish()
    }
}

impl std::fmt::Debug for Floats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Floats").field(&self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: an integer.
    unsafe impl Plain for u64 {}

    #[test]
    fn matrices_lie_side_by_side_apart_from_each_other_and_begin_as_zeros() {
        let lens = [0, 1, 1000, 9 << 20, 7, 100_000];
        for round in 1..4 {
            // Each round finds what the one before has left behind.
            let mut all: Vec<Numbers<u64>> = lens.iter().map(|&len| Numbers::zeros(len)).collect();
            for (i, numbers) in all.iter_mut().enumerate() {
                assert!(numbers.len() == lens[i] && numbers.iter().all(|v| *v == 0));
                assert_eq!(numbers.as_ptr() as usize % LINE, 0);
                numbers.fill(round * 10 + i as u64);
            }
            for (i, numbers) in all.iter().enumerate() {
                assert!(numbers.iter().all(|v| *v == round * 10 + i as u64), "{i}");
            }
        }
    }

    #[test]
    fn a_buffer_keeps_its_numbers_when_it_grows_and_its_memory_when_it_shrinks() {
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty());
        buffer.fit(3).copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(buffer.fit(5), [1.0, 2.0, 3.0, 0.0, 0.0]);
        let at = buffer.as_ptr();
        assert_eq!((buffer.fit(2).len(), buffer.as_ptr()), (2, at));
        assert_eq!(
            (buffer.clone().to_vec(), buffer.fit(0).len()),
            (vec![1.0, 2.0], 0)
        );
    }

    #[test]
    fn buffers_side_by_side_have_room_and_nothing_in_common_and_move_only_to_grow() {
        let lens = [1, 40, 0, 1 << 20, 17];
        let mut all: Vec<Buffer> = lens.iter().map(|_| Buffer::default()).collect();
        let place = |all: &mut Vec<Buffer>, times: usize| {
            let mut list: Vec<_> = all.iter_mut().zip(lens.map(|len| len * times)).collect();
            Buffer::side_by_side(&mut list);
        };
        for times in [1, 2] {
            place(&mut all, times);
            let at = |all: &[Buffer]| -> Vec<_> { all.iter().map(|b| b.as_ptr()).collect() };
            for (i, (buffer, len)) in all.iter_mut().zip(lens).enumerate() {
                buffer.fit(len * times).fill(i as f32);
            }
            for (i, buffer) in all.iter().enumerate() {
                assert!(buffer.iter().all(|v| *v == i as f32), "{i}");
                assert_eq!(buffer.as_ptr().addr() % LINE, 0);
            }
            let before = at(&all);
            place(&mut all, 1);
            assert_eq!(at(&all), before);
            let blocks = all.iter().filter_map(|b| b.room.as_ref());
            let first = all[0].room.as_ref().unwrap();
            assert!(
                blocks
                    .into_iter()
                    .all(|room| Arc::ptr_eq(&room._block, &first._block))
            );
        }
    }

    #[test]
    fn a_block_goes_back_with_its_last_matrix() {
        let (a, b) = (
            Numbers::<u64>::zeros(2 * BLOCK / 8),
            Numbers::<u64>::zeros(9),
        );
        let (large, other) = (Arc::downgrade(&a._block), Arc::downgrade(&b._block));
        drop(a);
        assert_eq!(large.strong_count(), 0);
        assert!(other.strong_count() > 0 && b.iter().all(|v| *v == 0));
    }

    #[test]
    fn an_adapters_numbers_lie_in_whole_huge_pages_of_their_own_and_go_back_alone() {
        let matrix = Numbers::<f32>::zeros(1000);
        for len in [
            0,
            1,
            1000,
            PAGE / 8 - 1,
            PAGE / 8,
            PAGE / 4,
            PAGE / 4 + 1,
            5 << 20,
        ] {
            let mut floats = Floats::zeros(len);
            let (at, layout) = (floats.as_ptr() as usize, floats.0._block.layout);
            let page = if len < PAGE / 8 { LINE } else { PAGE };
            assert!(layout.align() == page && at.is_multiple_of(page), "{len}");
            assert_eq!(layout.size(), Floats::bytes(len).max(LINE), "{len}");
            assert!(layout.size() < len * 4 + page.max(2 * LINE), "{len}");
            floats.fill(3.0);
            let same = floats.clone();
            let block = Arc::downgrade(&floats.0._block);
            drop(floats);
            assert_eq!(block.strong_count(), 0, "{len}");
            assert!(same.iter().all(|v| *v == 3.0));
        }
        assert!(matrix.iter().all(|v| *v == 0.0));
    }
}

//! Read buffers, borrowed only while a link has something to read.

use std::cell::Cell;

use bytes::BytesMut;

/// One read takes at most this much.
const SIZE: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// An initialised buffer of [`SIZE`] bytes.
pub(crate) fn take() -> BytesMut {
    SPARE.take().unwrap_or_else(|| {
        let mut buffer = BytesMut::zeroed(SIZE + 1);
        // Splitting makes the buffer count its references from now on, so that freezing and thawing it allocates nothing.
        drop(buffer.split_off(SIZE));
        buffer
    })
}

/// Gives a buffer back.
pub(crate) fn give(buffer: BytesMut) {
    if buffer.len() == SIZE {
        SPARE.set(Some(buffer));
    }
}

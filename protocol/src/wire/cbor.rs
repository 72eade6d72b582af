//! CBOR (RFC 8949) as strictly as the protocol demands: shortest integers, definite lengths, no tags, no floats.
//!
//! Reading borrows; nothing is ever copied or allocated on the way in.

use bytes::{BufMut as _, BytesMut};

/// The bytes are not the exact encoding. Which rule they break helps nobody who speaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the exact encoding that the protocol demands")]
pub struct Malformed;

/// How deep a skipped value may nest: 16 levels, of which the body that holds it is the first.
const DEPTH_MAX: u8 = 15;

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;
const FALSE: u64 = 20;
const TRUE: u64 = 21;
const NULL: u64 = 22;

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Fails unless everything was read.
    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// What was not read.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Malformed> {
        self.expect::<UINT>()
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.expect::<BYTES>()?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let len = self.expect::<TEXT>()?;
        core::str::from_utf8(self.take(len)?).map_err(|_| Malformed)
    }

    pub(crate) fn array(&mut self) -> Result<u64, Malformed> {
        self.expect::<ARRAY>()
    }

    pub(crate) fn map(&mut self) -> Result<u64, Malformed> {
        self.expect::<MAP>()
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.expect::<SIMPLE>()? {
            FALSE => Ok(false),
            TRUE => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// `null`, or what `read` reads.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.literal(&[NULL_BYTE]) {
            Ok(()) => Ok(None),
            Err(Malformed) => read(self).map(Some),
        }
    }

    /// Exactly these bytes come next.
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(Malformed)?;
        Ok(())
    }

    /// Passes over one value of any shape, as strictly as if it were wanted.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_nested(DEPTH_MAX)
    }

    fn skip_nested(&mut self, depth: u8) -> Result<(), Malformed> {
        let (major, value) = self.head()?;
        match major {
            UINT | NEGATIVE => Ok(()),
            BYTES => self.take(value).map(drop),
            TEXT => core::str::from_utf8(self.take(value)?).map(drop).map_err(|_| Malformed),
            ARRAY | MAP => {
                let depth = depth.checked_sub(1).ok_or(Malformed)?;
                let items = if major == MAP { value.checked_mul(2).ok_or(Malformed)? } else { value };
                for _ in 0..items {
                    self.skip_nested(depth)?;
                }
                Ok(())
            }
            SIMPLE if matches!(value, FALSE | TRUE | NULL) => Ok(()),
            _ => Err(Malformed),
        }
    }

    /// The head of the one major type that may come here; most heads are a single byte.
    #[inline]
    fn expect<const MAJOR: u8>(&mut self) -> Result<u64, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed)?;
        let info = first ^ (MAJOR << 5);
        self.rest = rest;
        if info < 24 { Ok(u64::from(info)) } else { self.long::<MAJOR>(info) }
    }

    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        let (major, info) = (first >> 5, first & 31);
        let value = match (major, info) {
            (_, 0..=23) => u64::from(info),
            (SIMPLE, _) => self.long::<SIMPLE>(info)?,
            (_, _) => self.long::<UINT>(info)?,
        };
        Ok((major, value))
    }

    /// The rest of a head that is not a single byte.
    fn long<const MAJOR: u8>(&mut self, info: u8) -> Result<u64, Malformed> {
        let (value, least) = match info {
            24 => (u64::from(u8::from_be_bytes(self.fixed()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.fixed()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.fixed()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.fixed()?), 1 << 32),
            _ => return Err(Malformed),
        };
        // The long forms of major type 7 are floats and unassigned values; none of them is used.
        if value < least || MAJOR == SIMPLE { Err(Malformed) } else { Ok(value) }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }
}

/// The encoding of `null`.
pub(crate) const NULL_BYTE: u8 = SIMPLE << 5 | NULL as u8;

pub(crate) fn put_null(out: &mut BytesMut) {
    out.put_u8(NULL_BYTE);
}

pub(crate) fn put_uint(out: &mut BytesMut, value: u64) {
    put_head(out, UINT, value);
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_bytes_head(out, bytes.len());
    out.put_slice(bytes);
}

/// The head of bytes that follow from elsewhere.
pub(crate) fn put_bytes_head(out: &mut BytesMut, len: usize) {
    put_head(out, BYTES, len as u64);
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    put_text_head(out, text.len());
    out.put_slice(text.as_bytes());
}

/// The head of a text whose bytes follow from elsewhere.
pub(crate) fn put_text_head(out: &mut BytesMut, len: usize) {
    put_head(out, TEXT, len as u64);
}

pub(crate) fn put_array(out: &mut BytesMut, len: u64) {
    put_head(out, ARRAY, len);
}

pub(crate) fn put_map(out: &mut BytesMut, len: u64) {
    put_head(out, MAP, len);
}

pub(crate) fn put_bool(out: &mut BytesMut, value: bool) {
    put_head(out, SIMPLE, if value { TRUE } else { FALSE });
}

fn put_head(out: &mut BytesMut, major: u8, value: u64) {
    let major = major << 5;
    // The casts are exact in their ranges.
    match value {
        0..=23 => out.put_u8(major | value as u8),
        24..=0xff => out.put_slice(&[major | 24, value as u8]),
        0x100..=0xffff => {
            let [a, b] = (value as u16).to_be_bytes();
            out.put_slice(&[major | 25, a, b]);
        }
        0x1_0000..=0xffff_ffff => {
            let [a, b, c, d] = (value as u32).to_be_bytes();
            out.put_slice(&[major | 26, a, b, c, d]);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
            out.put_slice(&[major | 27, a, b, c, d, e, f, g, h]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn integers_have_one_encoding() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut out = BytesMut::new();
            put_uint(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.uint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        for long in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255]]
        {
            assert_eq!(Reader::new(long).uint(), Err(Malformed), "{long:x?}");
        }
    }

    #[test]
    fn what_is_skipped_is_checked_too() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0]].concat();
        assert_eq!(Reader::new(&nested(15)).skip(), Ok(()));
        assert_eq!(Reader::new(&nested(16)).skip(), Err(Malformed));
        for bad in [
            &[0x9f, 0xff][..],
            &[0xc1, 0],
            &[0xf9, 0, 0],
            &[0xfb],
            &[0x62, 0xff, 0xff],
            &[0xa1, 0],
            &[0xf7],
            &[0xf8, 21],
        ] {
            assert_eq!(Reader::new(bad).skip(), Err(Malformed), "{bad:x?}");
        }
    }
}

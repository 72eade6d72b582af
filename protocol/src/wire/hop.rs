//! The hop header: what a hub rewrites at every step, in front of the signed message that no hub touches.

use alloc::vec::Vec;

use bytes::{BufMut as _, BytesMut};

use super::cbor::Malformed;
use crate::names::{HubId, Name};

/// The bit of a route number that says which side chose it: clear for the connecting side, set for the hub.
pub const ROUTE_BY_HUB: u32 = 1 << 31;

/// `u32 route ‖ u8 hops ‖ u8 number of visited hubs ‖ each id as u8 length ‖ bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Names one exchange on one link; 0 for broadcast, send and beacon.
    pub route: u32,
    /// Hubs passed so far.
    pub hops: u8,
    visited: &'a [u8],
}

impl<'a> Hop<'a> {
    /// A header for a message that has visited no bridge.
    #[must_use]
    pub const fn direct(route: u32, hops: u8) -> Self {
        Self { route, hops, visited: &[0] }
    }

    /// Splits a frame's body into the header and the message behind it.
    ///
    /// # Errors
    /// When the body is too short or a visited hub's id is no name.
    pub fn split(body: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let (route, rest) = body.split_first_chunk::<4>().ok_or(Malformed)?;
        let (&hops, visited) = rest.split_first().ok_or(Malformed)?;
        let (&count, mut rest) = visited.split_first().ok_or(Malformed)?;
        for _ in 0..count {
            let (&len, after) = rest.split_first().ok_or(Malformed)?;
            let (id, after) = after.split_at_checked(usize::from(len)).ok_or(Malformed)?;
            Name::new(core::str::from_utf8(id).map_err(|_| Malformed)?).map_err(|_| Malformed)?;
            rest = after;
        }
        let visited = visited.get(..visited.len() - rest.len()).ok_or(Malformed)?;
        Ok((Self { route: u32::from_be_bytes(*route), hops, visited }, rest))
    }

    /// The same header one hub further, for another exchange.
    #[must_use]
    pub const fn forward(self, route: u32) -> Self {
        Self { route, hops: self.hops.saturating_add(1), visited: self.visited }
    }

    /// Writes the header.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.route);
        out.put_u8(self.hops);
        out.put_slice(self.visited);
    }

    /// Writes the header for another hub: this one is then the last that the message has visited.
    pub fn put_past(&self, own: Name<'_>, out: &mut BytesMut) {
        out.put_u32(self.route);
        out.put_u8(self.hops);
        let (&count, ids) = self.visited.split_first().unwrap_or((&0, &[]));
        out.put_u8(count.saturating_add(1));
        out.put_slice(ids);
        // A name has at most 128 bytes.
        out.put_u8(own.as_str().len() as u8);
        out.put_slice(own.as_str().as_bytes());
    }

    /// How many bytes [`put_past`](Self::put_past) writes.
    #[must_use]
    pub const fn past_len(&self, own: Name<'_>) -> usize {
        self.encoded_len() + 1 + own.as_str().len()
    }

    /// The same header under another number.
    #[must_use]
    pub const fn with_route(self, route: u32) -> Self {
        Self { route, ..self }
    }

    /// Puts the header in the place of one with the same visited hubs, at the front of a body.
    pub(crate) fn overwrite(&self, body: &mut [u8]) {
        if let Some((route, [hops, ..])) = body.split_first_chunk_mut::<4>() {
            (*route, *hops) = (self.route.to_be_bytes(), self.hops);
        }
    }

    /// Whether the message comes from where it was made: it has passed no hub.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.hops == 0 && matches!(self.visited, [0])
    }

    /// How many bytes [`put`](Self::put) writes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        5 + self.visited.len()
    }

    /// Whether these are the hubs visited.
    #[must_use]
    pub fn is_path(&self, path: &[HubId]) -> bool {
        matches!((self.visited, path), ([0], [])) || self.visited().eq(path.iter().map(HubId::as_name))
    }

    /// The hubs visited, to keep.
    #[must_use]
    pub fn path(&self) -> Vec<HubId> {
        self.visited().filter_map(|hub| HubId::new(hub.as_str()).ok()).collect()
    }

    /// The ids of the hubs visited, in order.
    pub fn visited(&self) -> impl Iterator<Item = Name<'a>> {
        let mut rest = self.visited.get(1..).unwrap_or_default();
        core::iter::from_fn(move || {
            let (&len, after) = rest.split_first()?;
            let (id, after) = after.split_at_checked(usize::from(len))?;
            rest = after;
            Name::new(core::str::from_utf8(id).ok()?).ok()
        })
    }
}

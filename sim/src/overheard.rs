//! What hubs give to their clients, as somebody may know it who should not: links without tags only.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use commipc_protocol::LinkId;
use commipc_protocol::wire::FrameType;

use crate::mallory::{forgery, next};
use crate::node::NodeId;

/// Calls and signed messages of late.
#[derive(Debug, Default)]
pub(crate) struct Overheard {
    partly: BTreeMap<(NodeId, LinkId), BytesMut>,
    pub(crate) calls: VecDeque<Bytes>,
    pub(crate) signed: VecDeque<Bytes>,
}

/// How many of each are kept.
const KEPT: usize = 32;

impl Overheard {
    pub(crate) fn hear(&mut self, node: NodeId, link: LinkId, data: &[u8]) {
        let buffer = self.partly.entry((node, link)).or_default();
        buffer.extend_from_slice(data);
        while let Some(frame) = next(buffer) {
            let Some((kind, _, message)) = forgery::parts(&frame) else { continue };
            if kind == FrameType::Call {
                keep(&mut self.calls, &frame);
            }
            if message.header.epoch > 0 && matches!(kind, FrameType::Call | FrameType::Send | FrameType::Broadcast) {
                keep(&mut self.signed, &frame);
            }
        }
    }
}

fn keep(list: &mut VecDeque<Bytes>, frame: &Bytes) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(frame.clone());
}

//! What befalls nodes: connections that break or lead nowhere, processes that die and come back, clocks that jump.

use std::collections::BTreeMap;

use bytes::Bytes;
use commipc_protocol::{Instant, LinkEnd, Machine};
use core::time::Duration;

use super::{Engine, Happening};
use crate::liar::Liar;
use crate::node::{Node, NodeId};
use crate::wire::Pipe;

impl<M: Machine> Engine<M> {
    /// Ends the storm: no connection breaks by itself any more. What was taken from one and not noticed yet breaks it now.
    pub fn heal(&mut self) {
        self.attacker.robbed().into_iter().for_each(|wire| self.break_wire(wire, LinkEnd::Reset));
        self.weather = self.weather.healed();
        self.wires.iter_mut().flat_map(|wire| &mut wire.pipes).for_each(Pipe::heal);
    }

    /// Breaks every connection of a node, now.
    pub fn cut(&mut self, node: NodeId) {
        self.wires_of(node).into_iter().for_each(|(wire, _)| self.break_wire(wire, LinkEnd::Reset));
    }

    /// Breaks one connection of a node, now: of several, the one of this number.
    pub fn cut_one(&mut self, node: NodeId, number: usize) {
        if let Some((wire, _)) = self.wires_of(node).get(number) {
            self.break_wire(*wire, LinkEnd::Reset);
        }
    }

    /// Lets every connection of a node lead nowhere: what is said on it is lost, and neither end hears of that. With
    /// `one_way` only what the node says is lost. Gives how many there were.
    pub fn strand(&mut self, node: NodeId, one_way: bool) -> usize {
        let stranded = self.wires_of(node);
        for (wire, side) in &stranded {
            for (from, pipe) in self.wires[*wire].pipes.iter_mut().enumerate() {
                if from == *side || !one_way {
                    pipe.leads_nowhere();
                }
            }
        }
        stranded.len()
    }

    /// For so long nothing gets to a node or away from it, connections that are dialled meanwhile included. Nothing is lost:
    /// what is said waits, as it would be said again. Gives how many connections there were.
    pub fn part(&mut self, node: NodeId, time: Duration) -> usize {
        let (parted, until) = (self.wires_of(node), self.now() + time);
        for (wire, _) in &parted {
            self.wires[*wire].pipes.iter_mut().for_each(|pipe| pipe.waits(until));
        }
        if let Some(node) = self.nodes.get_mut(node.index()) {
            node.silent = node.silent.max(until);
        }
        parted.len()
    }

    /// For so long a node's process stands still, and its monotonic clock with it. Gives how much longer that is than it
    /// stands still anyway.
    pub fn pause(&mut self, node: NodeId, time: Duration) -> Duration {
        let now = self.now();
        self.nodes.get_mut(node.index()).map_or(Duration::ZERO, |node| node.stands_still(now, time))
    }

    /// Until when a node stands still, if it does.
    #[must_use]
    pub fn paused(&self, node: NodeId) -> Option<Instant> {
        self.nodes.get(node.index()).map(|node| node.still).filter(|until| *until > self.now())
    }

    /// Lets a node lose every connection, and no peer notice: with whom it dials again there are two. Gives how many there
    /// were.
    pub fn sever(&mut self, node: NodeId) -> usize {
        let (severed, now) = (self.wires_of(node), self.now());
        for (wire, side) in &severed {
            self.wires[*wire].pipes.iter_mut().for_each(Pipe::leads_nowhere);
            self.agenda.plan(now, Happening::Over { wire: *wire, side: *side, how: LinkEnd::Reset });
        }
        severed.len()
    }

    /// A node's process dies, and another machine is to take its place, which nobody can dial until [`Engine::start`]. Its
    /// peers notice, or with `silently` they do not.
    pub fn kill(&mut self, node: NodeId, machine: M, silently: bool) {
        for (wire, side) in self.wires_of(node) {
            if silently {
                self.wires[wire].pipes.iter_mut().for_each(Pipe::leads_nowhere);
            } else {
                self.break_wire(wire, LinkEnd::Reset);
            }
            self.forget(wire, side);
        }
        if let Some(node) = self.nodes.get_mut(node.index()) {
            node.dies(machine);
        }
    }

    /// A node that was killed can be dialled again.
    pub fn start(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(node.index()) {
            node.down = false;
        }
    }

    /// Whether a node's process is dead.
    #[must_use]
    pub fn is_down(&self, node: NodeId) -> bool {
        self.nodes.get(node.index()).is_some_and(|node| node.down)
    }

    /// Turns a node's clocks, by nanoseconds and milliseconds: to a machine it is as if time had passed, or had not.
    pub fn turn_clocks(&mut self, node: NodeId, mono: i64, wall: i64) {
        if let Some(node) = self.nodes.get_mut(node.index()) {
            node.clocks.mono = node.clocks.mono.saturating_add_signed(mono);
            node.clocks.wall += wall;
        }
        self.replan(node.index());
    }

    /// Whom it happens to.
    pub(super) fn at_of(&self, happening: &Happening) -> Option<&Node<M>> {
        let node = match happening {
            Happening::Wake(_) => return None,
            Happening::Timer { node, .. }
            | Happening::Drain { node }
            | Happening::Refuse { node, .. }
            | Happening::Stray { node, .. } => *node,
            Happening::Stand { wire, side }
            | Happening::Arrive { wire, side }
            | Happening::Written { wire, side }
            | Happening::Over { wire, side, .. } => self.wires.get(*wire)?.ends[*side].node,
        };
        self.nodes.get(node)
    }

    /// The connections of a node, and which side of each it is.
    fn wires_of(&self, node: NodeId) -> Vec<(usize, usize)> {
        self.nodes.get(node.index()).map(|node| node.links.values().copied().collect()).unwrap_or_default()
    }
}

/// What others make of what is said.
impl<M: Machine> Engine<M> {
    /// From now on what this node says to others is what a lying bridge makes of it. Frames are not to be tagged.
    pub(crate) fn lies(&mut self, node: NodeId) {
        let stream = self.decisions.stream("lies");
        self.liar = Some((node.index(), Liar::default(), stream));
    }

    /// How often it told each lie.
    pub(crate) fn lied(&self) -> BTreeMap<&'static str, u64> {
        self.liar.as_ref().map(|(_, liar, _)| liar.played().clone()).unwrap_or_default()
    }

    /// What whoever says it, or is on the path, lets through.
    pub(super) fn passed(&mut self, wire: usize, reader: usize, data: Bytes) -> Option<Bytes> {
        let (flow, writer) = ((wire, 1 - reader), self.wires[wire].ends[1 - reader].node);
        if let Some((node, liar, stream)) = &mut self.liar
            && *node == writer
        {
            return liar.pass(flow, &data, self.decisions.on(*stream));
        }
        if !self.wires[wire].attacked {
            return Some(data);
        }
        let (tagged, choose) = (!self.wires[wire].peer.is_private(), self.decisions.on(self.attack));
        self.attacker.pass(flow, tagged, &data, self.weather.assault.unwrap_or_default(), choose)
    }
}

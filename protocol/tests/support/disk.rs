//! A hub that stores what it confirms, and starts again with it.

use std::collections::{BTreeMap, VecDeque};

use commipc_protocol::client::{Command, Token};
use commipc_protocol::{Input, Limits, LinkEnd, Machine as _, hub};

use super::{World, name};

/// What a hub stores, as files by the names of channels.
#[derive(Default)]
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    pub asked: VecDeque<(u64, String, Option<Vec<u8>>)>,
    pub works: Works,
}

/// How a disk does what it is asked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Works {
    #[default]
    AtOnce,
    /// When the test says so.
    Later,
    Never,
}

/// A hub that stores, and starts again.
impl World {
    pub fn storing(names: &[&str]) -> Self {
        let mut world = Self::new(names);
        world.disk = Some(Disk::default());
        world.feed_hub(Input::Command(hub::Command::Restore(Vec::new())));
        world.connect_all();
        world
    }

    pub fn disk(&mut self) -> &mut Disk {
        self.disk.as_mut().expect("a hub that stores")
    }

    /// Does everything the disk was asked for; a disk that fails keeps what it has.
    pub fn work_disk(&mut self) {
        while let Some((ticket, channel, file)) = self.disk().asked.pop_front() {
            let durable = self.disk().works != Works::Never;
            if durable {
                match file {
                    Some(file) => self.disk().files.insert(channel, file),
                    None => self.disk().files.remove(&channel),
                };
            }
            self.feed_hub(Input::Command(hub::Command::Stored { ticket, durable }));
        }
    }

    /// The disk has been slow, and does now what it was asked.
    pub fn catch_up(&mut self) {
        while !self.disk().asked.is_empty() {
            self.work_disk();
            self.run();
        }
    }

    /// The hub dies without a word and starts again with what is on its disk; clients lose their links, and connect again.
    pub fn restart(&mut self) {
        for client in 0..self.clients.len() {
            self.links[client] = None;
            if let Some(link) = self.dialled[client].take() {
                self.clients[client].handle_input(self.now, Input::Closed { link, how: LinkEnd::Reset });
            }
        }
        self.hub = super::hub(Limits::default());
        if let Some(disk) = &mut self.disk {
            disk.asked.clear();
            let restored = disk.files.values().map(|file| hub::StoredChannel::decode(file).unwrap()).collect();
            self.feed_hub(Input::Command(hub::Command::Restore(restored)));
        }
        self.run();
        self.hub_events.clear();
        for client in 0..self.clients.len() {
            self.events[client].clear();
        }
        self.connect_all();
    }

    pub fn reclaim(&mut self, client: usize, channel: &str) {
        self.command(client, Command::Reclaim { token: Token(4), channel: name(channel) });
        assert!(self.expect_owner(client).is_some());
        self.expect_done(client, 4);
    }
}

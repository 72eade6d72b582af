//! A hub that stores what it confirms, and starts again with it.

use std::collections::{BTreeMap, VecDeque};

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{Command, Token};
use commipc_protocol::{Input, Limits, LinkEnd, Machine as _, hub};

use super::{World, name};

/// What a hub stores, as files by the names of channels.
#[derive(Default)]
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    pub asked: VecDeque<(u64, String, Option<Vec<u8>>)>,
    pub works: Works,
    /// Of how many files it has said that it could not keep them.
    pub failed: usize,
}

/// How a disk does what it is asked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Works {
    #[default]
    AtOnce,
    /// When the test says so.
    Later,
    Never,
    /// When it has failed so often.
    After(usize),
}

/// A hub that stores, and starts again.
impl World {
    pub fn storing(names: &[&str]) -> Self {
        Self::storing_with(names, Limits::default())
    }

    /// The same with other bounds.
    pub fn storing_with(names: &[&str], limits: Limits) -> Self {
        let clients = names.iter().map(|name| super::client(name, Secret::key(super::KEY))).collect();
        let mut world = Self::with(super::hub(limits), clients);
        world.disk = Some(Disk::default());
        world.feed_hub(Input::Command(hub::Command::Restore(Vec::new())));
        world.connect_all();
        world
    }

    pub fn disk(&mut self) -> &mut Disk {
        self.disk.as_mut().expect("a hub that stores")
    }

    /// What it was asked so far has become of it, and it works from now on.
    pub fn settle(&mut self, durable: bool) {
        self.disk().works = if durable { Works::AtOnce } else { Works::Never };
        for _ in 0..self.disk().asked.len() {
            self.work_disk_once();
        }
        self.disk().works = Works::AtOnce;
        self.run();
    }

    /// Does everything the disk was asked for; a disk that fails keeps what it has.
    pub fn work_disk(&mut self) {
        while self.work_disk_once() {}
    }

    fn work_disk_once(&mut self) -> bool {
        let Some((ticket, channel, file)) = self.disk().asked.pop_front() else { return false };
        let disk = self.disk();
        let durable = match disk.works {
            Works::AtOnce | Works::Later | Works::After(0) => true,
            Works::Never => false,
            Works::After(times) => {
                disk.works = Works::After(times - 1);
                false
            }
        };
        match file {
            Some(file) if durable => drop(disk.files.insert(channel, file)),
            None if durable => drop(disk.files.remove(&channel)),
            Some(_) => disk.failed += 1,
            None => {}
        }
        self.feed_hub(Input::Command(hub::Command::Stored { ticket, durable }));
        true
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
        self.start_again();
        self.hub_events.clear();
        for client in 0..self.clients.len() {
            self.events[client].clear();
        }
        self.connect_all();
    }

    /// The same for clients that come back by themselves.
    pub fn start_again(&mut self) {
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
    }

    pub fn reclaim(&mut self, client: usize, channel: &str) {
        self.command(client, Command::Reclaim { token: Token(4), channel: name(channel) });
        assert!(self.expect_owner(client).is_some());
        self.expect_done(client, 4);
    }
}

//! What machines hold, by their own word.

use commipc_protocol::Machine as _;
use commipc_protocol::client::{self, Client};
use commipc_protocol::hub::{self, Hub};

pub(crate) fn held_by_client(client: &Client) -> Vec<(&'static str, usize)> {
    let client::Load { calls, serving, controls, sends, streams, parked, windows, flowing, unwritten } = client.load();
    let tables = [("calls", calls), ("serving", serving), ("controls", controls), ("sends", sends), ("parked", parked)];
    let streams = [("streams", streams), ("windows", windows), ("flowing", flowing), ("unwritten", unwritten)];
    let timers = [("timers", usize::from(client.poll_timeout().is_some()))];
    tables.into_iter().chain(streams).chain(timers).collect()
}

pub(crate) fn held_by(hub: &Hub) -> Vec<(&'static str, usize)> {
    let hub::Load { links, clients, channels, calls, routes, streams, joins, buffered, memory } = hub.load();
    let tables = [("links", links), ("clients", clients), ("channels", channels), ("calls", calls), ("routes", routes)];
    let others = [("streams", streams), ("joins", joins), ("buffered", buffered), ("memory", memory)];
    let timers = [("timers", usize::from(hub.poll_timeout().is_some()))];
    tables.into_iter().chain(others).chain(timers).collect()
}

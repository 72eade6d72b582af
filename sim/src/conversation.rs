//! A run as people read it: who was asked for what, which frames went to whom, and what befell connections; as lines or as a
//! Mermaid sequence diagram.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use commipc_protocol::wire::{Control, Fail, FrameType, Goodbye, Hop, LENGTH_LEN, MAGIC, Message, TAG_LEN};
use commipc_protocol::{Flush, Input, Instant, LinkEnd, LinkId, Output, bridge, client};

use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// What was said and done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    names: BTreeMap<NodeId, String>,
    lines: Vec<Line>,
    links: BTreeMap<(NodeId, LinkId), Link>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    at: Instant,
    node: NodeId,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// Its application asks.
    Asked(String),
    /// Its application is told.
    Told(String),
    /// Frames go to another node.
    Said { to: Option<NodeId>, text: String },
    /// Something befalls it.
    Befell(String),
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    peer: Option<NodeId>,
    /// Frames carry tags once both sides have keys.
    public: bool,
    tagged: bool,
    /// The beginning of a frame whose rest is to come.
    partial: Vec<u8>,
}

/// The longest line, in characters.
const LINE: usize = 200;
/// Of a run that nobody can read as a whole the diagram shows the end.
const DRAWN: usize = 400;

impl Conversation {
    /// Whether nothing was kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn hear(&mut self, at: Instant, node: NodeId, name: &str, sight: &Sight<'_, Asked, Told>) {
        self.names.entry(node).or_insert_with(|| name.to_owned());
        let what = match sight {
            Sight::Linked { link, with, as_link } => {
                // A process that is new begins to count its links anew.
                self.links.insert((node, *link), Link { peer: Some(*with), ..Link::default() });
                self.links.insert((*with, *as_link), Link { peer: Some(node), ..Link::default() });
                return;
            }
            Sight::Fed(input) => self.fed(node, input),
            Sight::Gave(output) => self.gave(node, output),
            Sight::Drained => None,
            Sight::Broke(what) => Some(What::Befell(format!("breaks the contract with its driver: {what}"))),
        };
        self.lines.extend(what.map(|what| Line { at, node, what }));
    }

    fn fed(&mut self, node: NodeId, input: &Input<Asked>) -> Option<What> {
        match input {
            Input::Accepted { link, peer } | Input::Dialled { link, peer } => {
                self.links.entry((node, *link)).or_default().public = !peer.is_private();
                None
            }
            Input::Received { .. } | Input::Written { .. } | Input::Timeout => None,
            Input::Closed { how: LinkEnd::Eof, link } => {
                Some(What::Befell(format!("{} has hung up", self.peer(node, *link))))
            }
            Input::Closed { how, link } => {
                Some(What::Befell(format!("its connection with {} ends: {how:?}", self.peer(node, *link))))
            }
            Input::Command(Asked::Client(client::Command::KeyDerived(_))) => Some(What::Asked("KeyDerived".to_owned())),
            Input::Command(Asked::Client(command)) => Some(What::Asked(format!("{command:?}"))),
            Input::Command(Asked::Hub(command)) => Some(What::Asked(format!("{command:?}"))),
            Input::Command(Asked::Bridge(bridge::Command::KeyDerived(..))) => {
                Some(What::Asked("KeyDerived".to_owned()))
            }
            Input::Command(Asked::Bridge(command)) => Some(What::Asked(format!("{command:?}"))),
            Input::Command(Asked::Malice(order)) => Some(What::Asked(format!("{order:?}"))),
            Input::Shortage => Some(What::Befell("the system is short of files".to_owned())),
        }
    }

    fn gave(&mut self, node: NodeId, output: &Output<Told>) -> Option<What> {
        match output {
            Output::Transmit { link, data } => {
                let end = self.links.entry((node, *link)).or_default();
                let text = end.frames(data);
                (!text.is_empty()).then_some(What::Said { to: end.peer, text: text.join(", ") })
            }
            Output::Dial { .. } => None,
            Output::Close { link, flush: Flush::Written | Flush::Read | Flush::Nothing } => {
                Some(What::Befell(format!("hangs up on {}", self.peer(node, *link))))
            }
            Output::Event(Told::Client(event)) => Some(What::Told(format!("{event:?}"))),
            Output::Event(Told::Hub(event)) => Some(What::Told(format!("{event:?}"))),
            Output::Event(Told::Bridge(event)) => Some(What::Told(format!("{event:?}"))),
            Output::Event(Told::Withheld { from, what }) => Some(What::Told(format!("{what:?} is kept from {from}"))),
        }
    }

    fn peer(&self, node: NodeId, link: LinkId) -> &str {
        self.links.get(&(node, link)).and_then(|link| link.peer).map_or("nobody", |peer| self.name(peer))
    }

    fn name(&self, node: NodeId) -> &str {
        self.names.get(&node).map_or("?", String::as_str)
    }

    /// A line for everything, with the world's time.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Line { at, node, what } in &self.lines {
            let (millis, micros) = (at.as_nanos() / 1_000_000, at.as_nanos() / 1_000 % 1_000);
            let what = match what {
                What::Asked(what) => format!("is asked: {what}"),
                What::Told(what) => format!("tells: {what}"),
                What::Said { to, text } => format!("=> {}: {text}", to.map_or("nobody", |to| self.name(to))),
                What::Befell(what) => what.clone(),
            };
            let what: String = what.chars().take(LINE).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{millis:>8}.{micros:03} ms  {:<8} {what}", self.name(*node));
        }
        text
    }

    /// A sequence diagram in Mermaid's language; of a long run its end. Below it stands what was found.
    #[must_use]
    pub fn mermaid(&self, findings: &[String]) -> String {
        let lines = self.lines.get(self.lines.len().saturating_sub(DRAWN)..).unwrap_or_default();
        let mut text = "sequenceDiagram\n".to_owned();
        for name in self.names.values() {
            let _ = writeln!(text, "    participant {}", plain(name));
        }
        for Line { node, what, .. } in lines {
            let name = plain(self.name(*node));
            let _ = match what {
                What::Asked(what) => writeln!(text, "    Note over {name}: asked: {}", plain(what)),
                What::Told(what) => writeln!(text, "    Note over {name}: tells: {}", plain(what)),
                What::Befell(what) => writeln!(text, "    Note over {name}: {}", plain(what)),
                What::Said { to: Some(to), text: said } => {
                    writeln!(text, "    {name}->>{}: {}", plain(self.name(*to)), plain(said))
                }
                What::Said { to: None, text: said } => writeln!(text, "    {name}-x{name}: {}", plain(said)),
            };
        }
        if let (Some((_, first)), Some((_, last))) = (self.names.first_key_value(), self.names.last_key_value()) {
            for finding in findings {
                let _ = writeln!(text, "    Note over {},{}: FAILED {}", plain(first), plain(last), plain(finding));
            }
        }
        text
    }
}

/// Without what means something in Mermaid's language.
fn plain(text: &str) -> String {
    let plain = |letter: char| if ";#<>{}\"\n:".contains(letter) { ' ' } else { letter };
    text.chars().take(LINE / 2).map(plain).collect()
}

impl Link {
    /// What the frames say that end in these bytes.
    fn frames(&mut self, data: &[u8]) -> Vec<String> {
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(data);
        let mut rest = bytes.strip_prefix(&MAGIC).unwrap_or(&bytes);
        let mut said = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_LEN>() {
            let Some(number) = behind.first() else { break };
            let kind = FrameType::from_number(*number);
            self.tagged |= self.public && kind == Some(FrameType::Welcome);
            let tag = if self.tagged && kind != Some(FrameType::AuthFailed) { TAG_LEN } else { 0 };
            let length = u32::from_be_bytes(*length) as usize;
            let Some((frame, after)) = behind.split_at_checked(length + tag) else { break };
            let body = frame.get(1..length).unwrap_or_default();
            said.push(kind.map_or_else(|| format!("a frame of type {number}"), |kind| describe(kind, body)));
            self.tagged |= self.public && kind == Some(FrameType::Proof);
            rest = after;
        }
        self.partial = rest.to_vec();
        said
    }
}

/// A frame in a few words.
fn describe(kind: FrameType, body: &[u8]) -> String {
    let name = format!("{kind:?}");
    if kind == FrameType::Goodbye
        && let Ok(goodbye) = Goodbye::parse(body)
    {
        return format!("{name} {goodbye:?}");
    }
    if kind == FrameType::Fail
        && let Ok(fail) = Fail::parse(body.get(4..).unwrap_or_default())
    {
        return format!("{name} {fail:?}");
    }
    let Ok((_, carried)) = Hop::split(body) else { return name };
    let Ok(message) = Message::parse(carried) else { return name };
    let header = &message.header;
    let signed = if message.tag.is_empty() { "" } else { ", signed" };
    let number = if header.request > 0 { header.request } else { header.bseq };
    format!("{name} {}/{} no. {number} of {}{signed}", header.channel, header.event, header.sender)
}

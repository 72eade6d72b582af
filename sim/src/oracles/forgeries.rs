//! Past an honest hub nothing comes with a signature that is none: whoever cannot sign is no member, and is not heard.

use commipc_protocol::client::{Dropped, Event};
use commipc_protocol::{Instant, Output};

use super::{Oracle, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::Told;

/// Holds that a hub keeps strangers out of a channel.
#[derive(Debug, Default)]
pub struct Forgeries;

impl Oracle for Forgeries {
    fn name(&self) -> &'static str {
        "forgeries"
    }

    fn saw(&mut self, _: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        let forged = matches!(
            sight,
            Sight::Gave(Output::Event(Told::Client(Event::Dropped(Dropped::BadSignature | Dropped::Own))))
        );
        ensure(!forged, || format!("{node:?} was given what no member can have said to it: {sight:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use super::*;

    #[test]
    fn bites_on_what_a_stranger_said() {
        let mut scene = Scene::new(Forgeries);
        scene.tells(1, Event::Dropped(Dropped::EndedRoute)).unwrap();
        assert!(scene.tells(1, Event::Dropped(Dropped::BadSignature)).is_err());
    }
}

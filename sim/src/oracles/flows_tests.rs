//! The truth about streams bites.

use commipc_protocol::client::{CallFailure, Credit, EventKind, Failure, Payload, Token};
use commipc_protocol::{Fault, FaultCode, Instant, Misuse, Refusal};

use super::flows::{Ask, End, Ending, Flows};
use super::scene::{id, outgoing, payload};
use super::{Content, Salt, Verdict};
use crate::node::NodeId;

const CALLER: NodeId = NodeId::new(1);
const PROVIDER: NodeId = NodeId::new(2);
const SALT: Option<Salt> = Some([1; 16]);
const WINDOW: Credit = Credit { items: 2, bytes: 1 << 20 };

fn content(text: &'static str) -> Content {
    Content::said(&outgoing(text))
}

/// A stream that its caller asked for under one protection and its provider took under another, with three items.
fn scene(asked: Option<Salt>, taken: Option<Salt>) -> Flows<u8> {
    let mut flows = Flows::default();
    flows.ids.extend((1..4).map(|node| (NodeId::new(node), id(node))));
    flows.provides(PROVIDER, Token(5), EventKind::Exchange);
    flows.asked(CALLER, Token(1), Ask::new(content("q"), true, asked, (Instant::ZERO, None), WINDOW));
    flows.drained(CALLER);
    flows.requested(PROVIDER, 7, Token(5), id(1), content("q"), taken);
    flows.accepted(Instant::ZERO, PROVIDER, 7, WINDOW);
    flows.said(PROVIDER, End::Provider(7), |said| said.give(&["a", "b", "c"].map(payload)));
    flows.said(CALLER, End::Caller(Token(1)), |said| said.give(&["x", "y"].map(payload)));
    flows
}

fn comes(flows: &mut Flows<u8>, item: Payload) -> Verdict {
    flows.came(CALLER, End::Caller(Token(1)), &item, 256)?;
    flows.consumed(CALLER, End::Caller(Token(1)), Credit { items: 1, bytes: 256 });
    Ok(())
}

fn all_comes(flows: &mut Flows<u8>, items: &[&'static str]) -> Verdict {
    items.iter().try_for_each(|item| comes(flows, payload(item)))
}

fn ends(flows: &mut Flows<u8>, result: &Result<(), CallFailure>) -> Verdict {
    flows.ended(Instant::ZERO, CALLER, Token(1), result)
}

#[test]
fn s45_bites_on_items_that_are_not_the_beginning_of_what_was_given() {
    for (items, fine) in
        [(&["a", "b", "c"][..], true), (&["b"], false), (&["a", "c"], false), (&["a", "a"], false), (&["z"], false)]
    {
        assert_eq!(all_comes(&mut scene(SALT, SALT), items).is_ok(), fine, "{items:?}");
    }
    assert!(all_comes(&mut scene(SALT, SALT), &["a", "b", "c", "d"]).is_err(), "more than was given");
    assert!(all_comes(&mut scene(SALT, None), &["a"]).is_err(), "unsigned");
    assert!(all_comes(&mut scene(SALT, Some([2; 16])), &["a"]).is_err(), "of another time");
    assert!(all_comes(&mut scene(None, None), &["z"]).is_ok(), "nothing holds where nothing is signed");
}

#[test]
fn v27_bites_on_a_success_without_all_of_it() {
    for (items, ending, fine) in [
        (&["a", "b", "c"][..], Some(Ending::All), true),
        (&["a", "b"], Some(Ending::All), false),
        (&["a", "b", "c"], None, false),
        (&["a", "b", "c"], Some(Ending::Fault(FaultCode::HandlerFailed.into())), false),
    ] {
        let mut flows = scene(SALT, SALT);
        if let Some(ending) = ending {
            flows.said(PROVIDER, End::Provider(7), |said| said.end(ending));
        }
        all_comes(&mut flows, items).unwrap();
        assert_eq!(ends(&mut flows, &Ok(())).is_ok(), fine, "{items:?}");
    }
}

#[test]
fn s46_bites_on_a_fault_that_nobody_gave_and_on_a_claim_that_nobody_was_asked() {
    let fault = Fault { code: 1_001, ..FaultCode::HandlerFailed.into() };
    let failed = Err(CallFailure::Fault(fault.clone()));
    assert!(ends(&mut scene(SALT, SALT), &failed).is_err());
    let mut flows = scene(SALT, SALT);
    flows.said(PROVIDER, End::Provider(7), |said| said.end(Ending::Fault(fault)));
    assert!(ends(&mut flows, &failed).is_ok());
    let failure = Failure::Refused(Refusal::NoProvider);
    let claims = |maybe_executed| Err(CallFailure::Failed { failure, maybe_executed });
    assert!(ends(&mut scene(SALT, SALT), &claims(true)).is_ok());
    assert!(ends(&mut scene(SALT, SALT), &claims(false)).is_err());
}

#[test]
fn s50_bites_on_more_than_is_wanted_and_on_what_comes_after_the_end() {
    let mut flows = scene(SALT, SALT);
    let item = |flows: &mut Flows<u8>, text| flows.came(CALLER, End::Caller(Token(1)), &payload(text), 256);
    item(&mut flows, "a").unwrap();
    item(&mut flows, "b").unwrap();
    assert!(item(&mut flows, "c").is_err(), "two may be on their way");
    let mut flows = scene(SALT, SALT);
    let cancelled = CallFailure::Failed { failure: Failure::Local(Misuse::Cancelled), maybe_executed: true };
    ends(&mut flows, &Err(cancelled)).unwrap();
    assert!(item(&mut flows, "a").is_err(), "it had ended");
    assert!(flows.came(CALLER, End::Caller(Token(9)), &payload("a"), 256).is_err(), "nobody asked for it");
    assert_eq!(flows.wanted(PROVIDER, End::Provider(7)), 2);
}

#[test]
fn bites_on_items_of_the_caller_that_it_did_not_give() {
    let mut flows = scene(SALT, SALT);
    let item = |flows: &mut Flows<u8>, text| flows.came(PROVIDER, End::Provider(7), &payload(text), 256);
    item(&mut flows, "x").unwrap();
    assert!(flows.finished(PROVIDER, 7, Ok(())).is_err(), "its caller has not said so");
    flows.said(CALLER, End::Caller(Token(1)), |said| said.end(Ending::All));
    assert!(flows.finished(PROVIDER, 7, Ok(())).is_err(), "one is missing");
    assert!(flows.finished(PROVIDER, 7, Err(Misuse::Truncated)).is_ok());
    item(&mut flows, "y").unwrap();
    assert!(flows.finished(PROVIDER, 7, Ok(())).is_ok());
    assert!(item(&mut scene(SALT, SALT), "y").is_err());
}

//! Hubs and bridges as processes of their own: a ring of four hubs with a bridge across.

mod support;

use rustix::process::Signal;
use support::{Process, Scene, wait_until};

/// Hubs `a` to `d`, each with a socket of its own, and one secret for all bridges.
struct Ring {
    scene: Scene,
    hubs: Vec<Option<Process>>,
    bridges: Vec<Process>,
    key: String,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Who is joined with whom.
const BRIDGES: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)];

impl Ring {
    fn new() -> Self {
        let scene = Scene::new();
        let key = scene.file("bridge.key", &format!("key:{}\n", "b7".repeat(32)));
        let mut ring = Self { scene, hubs: Vec::new(), bridges: Vec::new(), key };
        for hub in 0..4 {
            let process = ring.start_hub(hub);
            ring.hubs.push(Some(process));
        }
        ring
    }

    fn url(&self, hub: usize) -> String {
        format!("unix:{}", self.scene.path(&format!("{}.sock", NAMES[hub])).display())
    }

    fn start_hub(&self, hub: usize) -> Process {
        let (url, id) = (self.url(hub), format!("hub-{}", NAMES[hub]));
        let mut process = self.scene.start(&["hub", "--listen", &url, "--id", &id, "--bridge-secret-file", &self.key]);
        assert_eq!(process.line(), format!("listening on {url}"));
        process
    }

    fn bridge(&self, a: usize, b: usize, args: &[&str]) -> Process {
        let (a, b) = (self.url(a), self.url(b));
        let mut process = self.scene.start(&[&["bridge", &a, &b, "--secret-file", &self.key], args].concat());
        assert_eq!(process.line(), "bridged");
        process
    }

    fn join_all(&mut self) {
        self.bridges = BRIDGES.iter().map(|(a, b)| self.bridge(*a, *b, &[])).collect();
    }

    /// Runs a command at a hub to its end.
    fn run(&self, hub: usize, args: &[&str]) -> support::Done {
        self.scene.run(&[args, &["--hub", &self.url(hub)]].concat())
    }

    fn provider(&self, hub: usize, args: &[&str]) -> Process {
        let mut provider = self.scene.start(&[&["provide", "math", "twice", "--hub", &self.url(hub)], args].concat());
        assert_eq!(provider.line(), "providing math/twice");
        provider
    }

    fn listener(&self, hub: usize) -> Process {
        self.scene.listener(&["math", "--json", "--hub", &self.url(hub)])
    }
}

#[test]
fn d15_s74_s75_s76_v31_a_ring_of_hubs_is_one_to_clients() {
    let mut ring = Ring::new();
    let provider = ring.provider(2, &["--reply", "42"]);
    ring.join_all();
    for hub in 0..4 {
        ring.run(hub, &["call", "math", "twice", "21"]).printed("42");
    }
    let mut listeners: Vec<_> = (0..4).map(|hub| ring.listener(hub)).collect();
    for hub in 0..4 {
        // Word of a listener takes a moment to every hub; a second broadcast shows that the first came once.
        ring.run(hub, &["broadcast", "math", "first", &hub.to_string()]).printed("");
    }
    let mut seen = vec![std::collections::BTreeMap::<String, usize>::new(); 4];
    for (hub, listener) in listeners.iter_mut().enumerate() {
        for _ in 0..4 {
            let line = support::json(&listener.line());
            let said = format!("{} from {}", line["event"], line["data"]);
            *seen[hub].entry(said).or_default() += 1;
        }
    }
    ring.run(0, &["broadcast", "math", "last"]).printed("");
    for (hub, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(support::json(&listener.line())["event"], "last", "nothing came twice at {hub}");
        assert_eq!(seen[hub].len(), 4, "{:?}", seen[hub]);
    }
    drop(provider);
}

#[test]
fn d16_s80_bridges_and_hubs_that_are_killed_come_back_with_what_is_there_by_then() {
    let mut ring = Ring::new();
    ring.join_all();
    let provider = ring.provider(2, &["--reply", "42"]);
    let calls = |ring: &Ring, hub: usize| {
        wait_until(|| ring.run(hub, &["call", "math", "twice", "21", "--deadline", "5s"]).code == Some(0));
    };
    calls(&ring, 0);
    // The bridge across is gone, and then the hub on one of the ways around.
    let across = ring.bridges.pop().unwrap();
    across.signal(Signal::KILL);
    across.end();
    calls(&ring, 0);
    ring.hubs[1].take().unwrap().signal(Signal::KILL);
    calls(&ring, 0);
    ring.hubs[1] = Some(ring.start_hub(1));
    assert!(ring.bridges[0].line_beside().contains("lost"));
    assert_eq!(ring.bridges[0].line(), "bridged");
    calls(&ring, 1);
    // A provider that is gone is gone everywhere.
    drop(provider);
    wait_until(|| ring.run(0, &["call", "math", "twice", "21"]).code == Some(3));
    for bridge in &ring.bridges {
        bridge.signal(Signal::TERM);
    }
    for bridge in std::mem::take(&mut ring.bridges) {
        assert_eq!(bridge.end().code, Some(0));
    }
}

#[test]
fn s82_v32_a_password_of_one_hub_opens_the_channel_from_another() {
    let mut ring = Ring::new();
    ring.join_all();
    let key = ring.scene.file("vault.key", &format!("key:{}\n", "5a".repeat(32)));
    let mut owner = ring.scene.start(&["protect", "vault", "--password-file", &key, "--hub", &ring.url(0)]);
    assert_eq!(owner.line(), "protecting vault");
    let provide = ["provide", "vault", "open", "--echo", "--password-file", &key, "--hub", &ring.url(2)];
    wait_until(|| {
        let mut provider = ring.scene.start(&provide);
        let said = provider.line_anywhere();
        if !said.contains("providing") {
            return false;
        }
        ring.bridges.push(provider);
        true
    });
    wait_until(|| ring.run(1, &["call", "vault", "open", "7", "--password-file", &key]).stdout.trim() == "7");
    let wrong = ring.scene.file("wrong.key", &format!("key:{}\n", "5b".repeat(32)));
    ring.run(1, &["call", "vault", "open", "7", "--password-file", &wrong]).failed(6, &["code 210"]);
}

#[test]
fn s74_s77_what_a_bridge_is_told_to_pass_and_what_it_needs() {
    let ring = Ring::new();
    let (a, b) = (ring.url(0), ring.url(1));
    ring.scene.run(&["bridge", &a, &b]).failed(6, &["secret of their own", "--bridge-secret-file"]);
    ring.scene.run(&["bridge", &a, &a, "--secret-file", &ring.key]).failed(6, &["both ends are the hub hub-a"]);
    ring.scene.run(&["bridge", &a, &b, "--secret-file", &ring.key, "--allow", "@x"]).failed(2, &["CHANNEL@EVENT"]);
    let hub_key = format!("{}.key", ring.scene.path("a.sock").display());
    let shared = ["bridge", &a, &b, "--credential", "default", "--secret-file", &hub_key];
    ring.scene.run(&shared).failed(6, &["not a bridge's"]);
    let _bridge = ring.bridge(0, 1, &["--one-way", "--allow", "math@twice", "--rate", "1000"]);
    let _there = ring.provider(0, &["--reply", "42"]);
    wait_until(|| ring.run(1, &["call", "math", "twice", "21"]).stdout.trim() == "42");
    let mut other = ring.scene.start(&["provide", "math", "other", "--reply", "1", "--hub", &b]);
    assert_eq!(other.line(), "providing math/other");
    ring.run(0, &["call", "math", "other"]).failed(3, &["code 300"]);
}

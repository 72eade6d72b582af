//! Four hubs in a ring, with a bridge across: processes of their own.

use super::{Done, Process, Scene};

/// Hubs `a` to `d`, each with an address of its own, and one secret for all bridges.
pub struct Ring {
    pub scene: Scene,
    pub hubs: Vec<Option<Process>>,
    pub bridges: Vec<Process>,
    /// The file with what bridges prove.
    pub key: String,
    /// The file with what clients prove, where hubs do not keep a key beside their sockets.
    pub hub_key: Option<String>,
    urls: Vec<String>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Who is joined with whom.
pub const BRIDGES: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)];

impl Ring {
    /// All on Unix sockets.
    pub fn new() -> Self {
        let scene = Scene::new();
        let urls = NAMES.map(|name| format!("unix:{}", scene.path(&format!("{name}.sock")).display()));
        Self::start(scene, urls, None)
    }

    /// Every other one on TCP.
    pub fn mixed() -> Self {
        let scene = Scene::new();
        let hub_key = scene.file("hub.key", &format!("key:{}\n", "1a".repeat(32)));
        let socket = |name: &str| format!("unix:{}", scene.path(&format!("{name}.sock")).display());
        // An address of their own, so that nobody else takes a port while its hub is not there.
        let urls = [socket("a"), "tcp://127.78.0.1:0".to_owned(), socket("c"), "tcp://127.78.0.2:0".to_owned()];
        Self::start(scene, urls, Some(hub_key))
    }

    fn start(scene: Scene, urls: [String; 4], hub_key: Option<String>) -> Self {
        let key = scene.file("bridge.key", &format!("key:{}\n", "b7".repeat(32)));
        let (hubs, bridges) = (Vec::new(), Vec::new());
        let mut ring = Self { scene, hubs, bridges, key, hub_key, urls: urls.into() };
        for hub in 0..4 {
            let mut process = ring.start_hub(hub);
            let line = process.line();
            ring.urls[hub] = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
            ring.hubs.push(Some(process));
        }
        ring
    }

    pub fn url(&self, hub: usize) -> String {
        self.urls[hub].clone()
    }

    /// Does not wait until it listens.
    pub fn start_hub(&self, hub: usize) -> Process {
        let (url, id) = (self.url(hub), format!("hub-{}", NAMES[hub]));
        let mut args = vec!["hub", "--listen", &url, "--id", &id, "--bridge-secret-file", &self.key];
        if let Some(key) = &self.hub_key {
            args.extend(["--secret-file", key]);
        }
        self.scene.start(&args)
    }

    /// Does not wait until it has joined its hubs.
    pub fn start_bridge(&self, (a, b): (usize, usize), args: &[&str]) -> Process {
        let (a, b) = (self.url(a), self.url(b));
        self.scene.start(&[&["bridge", &a, &b, "--secret-file", &self.key], args].concat())
    }

    pub fn bridge(&self, between: (usize, usize), args: &[&str]) -> Process {
        let mut process = self.start_bridge(between, args);
        assert_eq!(process.line(), "bridged");
        process
    }

    pub fn join_all(&mut self) {
        self.bridges = BRIDGES.iter().map(|between| self.bridge(*between, &[])).collect();
    }

    /// Runs a command at a hub to its end.
    pub fn run(&self, hub: usize, args: &[&str]) -> Done {
        self.scene.run(&[args, &["--hub", &self.url(hub)]].concat())
    }

    pub fn provider(&self, hub: usize, args: &[&str]) -> Process {
        let mut provider = self.scene.start(&[&["provide", "math", "twice", "--hub", &self.url(hub)], args].concat());
        assert_eq!(provider.line(), "providing math/twice");
        provider
    }

    pub fn listener(&self, hub: usize) -> Process {
        self.scene.listener(&["math", "--json", "--hub", &self.url(hub)])
    }
}

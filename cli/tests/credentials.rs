//! A table of credentials: who may connect as whom, and how it changes while the hub runs.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use support::{Process, Scene, json};

const ALICE: &str = "alice password:wonder ids=alice,alice-*\n";
const MONITOR: &str = "monitor password:glass ids=monitor-* can=observer # who may look\n";

/// A hub with a table, and files with the passwords of its entries.
struct Table {
    scene: Scene,
    file: String,
}

impl Table {
    fn new(text: &str) -> Self {
        Self::with(text, [("alice", "wonder"), ("monitor", "glass"), ("default", "hatter")])
    }

    fn with<const N: usize>(text: &str, secrets: [(&str, &str); N]) -> Self {
        let scene = Scene::new();
        let file = scene.file("table", text);
        for (name, secret) in secrets {
            scene.file(name, secret);
        }
        Self { scene, file }
    }

    fn hub(&self, options: &[&str]) -> Process {
        let mut hub = self.scene.start(&[&["hub", "--credentials", &self.file], options].concat());
        assert!(hub.line().contains("listening"), "it does not start");
        hub
    }

    /// Connects with a credential and calls what nobody provides: 3 is success here.
    fn call(&self, credential: &str, id: &str) -> support::Done {
        let secret = self.scene.path(credential).display().to_string();
        let common = ["--credential", credential, "--secret-file", &secret, "--id", id];
        self.scene.run(&[&["call", "math", "x"][..], &common].concat())
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("a file of this test");
    }
}

#[test]
fn each_credential_is_for_its_own_ids_and_what_it_may() {
    let table = Table::new(&[ALICE, MONITOR].concat());
    let _hub = table.hub(&[]);
    table.call("alice", "alice").failed(3, &[]);
    table.call("alice", "alice-2").failed(3, &[]);
    table.call("alice", "bob").failed(6, &["may not use this client id", "--id"]);
    table.call("monitor", "alice").failed(6, &["may not use this client id"]);
    table.call("default", "x").failed(6, &["authentication failed"]);
    let channels = |credential: &str, id: &str| {
        let secret = table.scene.path(credential).display().to_string();
        table.scene.run(&["channels", "--credential", credential, "--secret-file", &secret, "--id", id])
    };
    channels("monitor", "monitor-1").printed("");
    channels("alice", "alice").failed(6, &["code 218", "can=observer"]);
    assert!(!table.scene.path("hub.sock.key").exists(), "nobody needs a key beside the socket");
}

#[test]
fn the_secret_of_those_who_name_no_credential_stands_in_a_file_or_in_the_table() {
    let table = Table::new(ALICE);
    let shared = table.scene.path("default").display().to_string();
    let hub = table.hub(&["--secret-file", &shared]);
    table.call("default", "anybody").failed(3, &[]);
    table.call("alice", "alice").failed(3, &[]);
    hub.signal(Signal::TERM);
    assert_eq!(hub.end().code, Some(0));

    table.write(&format!("{ALICE}default password:hatter ids=*\n"));
    let hub = table.hub(&[]);
    table.call("default", "anybody").failed(3, &[]);
    hub.signal(Signal::TERM);
    assert_eq!(hub.end().code, Some(0));

    let both = table.scene.run(&["hub", "--credentials", &table.file, "--secret-file", &shared]);
    both.failed(6, &["'default'", "--secret-file"]);
}

#[test]
fn a_table_that_makes_no_sense_is_6_and_says_where() {
    let table = Table::new("alice password:x\n");
    let start = || table.scene.run(&["hub", "--credentials", &table.file]);
    start().failed(6, &["table, line 1", "ids=*", "commipc hub --help"]);
    table.write("# nobody\n");
    start().failed(6, &["no entries"]);
    table.write(ALICE);
    std::fs::set_permissions(&table.file, Permissions::from_mode(0o640)).unwrap();
    start().failed(6, &["chmod 600"]);
    table.scene.run(&["hub", "--credentials", "/no/such/table"]).failed(6, &["/no/such/table"]);
    let json = table.scene.run(&["hub", "--credentials", "/no/such/table", "--json"]);
    assert_eq!(json.json_error()["exit"], 6, "{json:?}");
    table.scene.run(&["hub", "--credentials", &table.file, "--insecure-no-auth"]).failed_at_usage();
}

#[test]
fn sighup_reads_the_table_anew_and_leaves_connections_alone() {
    let table = Table::new(ALICE);
    let shared = table.scene.path("default").display().to_string();
    for json_wanted in [false, true] {
        table.write(ALICE);
        std::fs::write(&shared, "hatter").unwrap();
        let options = ["--secret-file", &shared, "--json"];
        let mut hub = table.hub(&options[..2 + usize::from(json_wanted)]);
        table.call("monitor", "monitor-1").failed(6, &[]);
        let secret = table.scene.path("alice").display().to_string();
        let standing = ["--credential", "alice", "--secret-file", &secret, "--id", "alice-stands"];
        let mut listener = table.scene.listener(&[&["math"][..], &standing].concat());

        table.write(MONITOR);
        std::fs::write(&shared, "march hare").unwrap();
        hub.signal(Signal::HUP);
        let line = hub.line();
        if json_wanted {
            assert_eq!(json(&line), serde_json::json!({ "reloaded": table.file }));
        } else {
            assert_eq!(line, format!("reloaded {}", table.file));
        }
        table.call("monitor", "monitor-1").failed(3, &[]);
        table.call("alice", "alice").failed(6, &["authentication failed"]);
        table.call("default", "anybody").failed(3, &[]);
        let old = table.scene.file(if json_wanted { "old-json" } else { "old" }, "hatter");
        table.scene.run(&["call", "math", "x", "--secret-file", &old]).failed(6, &["authentication failed"]);
        table.scene.run(&["broadcast", "math", "news", "--secret-file", &shared, "--id", "me"]).printed("");
        assert_eq!(listener.line(), "me news null", "a connection that stood goes on");

        table.write("monitor nonsense\n");
        hub.signal(Signal::HUP);
        let said = hub.line_beside();
        if json_wanted {
            let error = json(&said);
            assert!(error["error"].as_str().unwrap().contains("line 1") && error["hint"].is_string(), "{said}");
        } else {
            assert!(said.contains("line 1") && said.contains("the old ones stay in force"), "{said}");
            assert!(hub.line_beside().contains("commipc hub --help"));
        }
        table.call("monitor", "monitor-1").failed(3, &[]);
        hub.signal(Signal::TERM);
        let done = hub.end();
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(0), "", ""));
    }
}

#[test]
fn an_admin_clears_a_channel_whose_password_nobody_knows_any_more() {
    let key = |number: u8| format!("key:{}", format!("{number:02x}").repeat(32));
    let [alice, monitor, boss, default] = [1, 2, 3, 4].map(key);
    let text = format!("alice {alice} ids=*\nmonitor {monitor} ids=* can=observer\nboss {boss} ids=* can=admin\n");
    let table = Table::with(&text, [("alice", &alice), ("monitor", &monitor), ("boss", &boss), ("default", &default)]);
    let _hub = table.hub(&["--secret-file", &table.scene.path("default").display().to_string()]);
    let run = |credential: &str, id: &str, args: &[&str]| {
        let secret = table.scene.path(credential).display().to_string();
        table.scene.run(&[args, &["--credential", credential, "--secret-file", &secret, "--id", id]].concat())
    };
    let password = table.scene.file("vault.key", &format!("key:{}\n", "5a".repeat(32)));
    let protect = ["protect", "vault", "--password-file", &password, "--credential", "alice"];
    let secret = table.scene.path("alice").display().to_string();
    let mut owner = table.scene.start(&[&protect[..], &["--secret-file", &secret, "--id", "alice"]].concat());
    assert_eq!(owner.line(), "protecting vault");
    owner.signal(Signal::KILL);
    owner.end();
    run("monitor", "monitor-1", &["channels"]).printed(
        "CHANNEL  OWNER  PASSWORD  MEMBERS  PROVIDERS\n\
         vault    -      yes       0        0",
    );
    run("default", "x", &["call", "vault", "open"]).failed(6, &["code 209"]);
    for (credential, id) in [("alice", "alice-2"), ("monitor", "monitor-1"), ("default", "x")] {
        run(credential, id, &["clear", "vault"]).failed(6, &["code 218", "can=admin"]);
    }
    run("boss", "b", &["channels"]).failed(6, &["code 218", "can=observer"]);
    run("boss", "b", &["clear", "vault"]).printed("cleared vault");
    run("default", "x", &["call", "vault", "open"]).failed(3, &["commipc provide vault open"]);
    run("boss", "b", &["clear", "nowhere"]).failed(1, &["nowhere: there is no such channel", "commipc channels"]);
    run("boss", "b", &["clear", "__comm_ipc_logs"]).failed(6, &["code 215"]);
    // One that is in use ends for those who have it open.
    let mut heard =
        table.scene.start(&["listen", "news", "--credential", "alice", "--secret-file", &secret, "--id", "alice"]);
    assert_eq!(heard.line_beside(), "listening to news");
    let cleared = run("boss", "b", &["clear", "news", "--json"]);
    assert_eq!(cleared.json_lines(), [serde_json::json!({ "cleared": "news" })]);
    heard.end().failed(6, &["the channel was closed"]);
}
